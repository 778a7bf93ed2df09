"""The likely causes that a report can name, each with what it means."""

CAUSES = {
    # the shape of the answer
    "exception": "the code under test raises",
    "structure": "forward or vjp returns something else than the contract asks for",
    "integer cotangent": "integers have the cotangent None",
    "swapped": "two outputs are exchanged",
    "missing sum": "a sum over a broadcast axis is missing",
    "transposed": "the result has two axes exchanged",
    "misplaced": "the right values stand in the wrong places",
    "never written": "the leaf stays zero, or at what it was allocated with",
    # the algebra
    "sign": "the whole leaf has the wrong sign",
    "constant factor": "the whole leaf is off by one constant",
    "missing factor": "a factor is left out: an array, a slope, or g itself",
    "extra factor": "a factor stands there once too often",
    "missing term": "one of several terms or paths is left out: a projection, a mean, a skip",
    "wrong term": "one of several terms or paths has the wrong sign or constant",
    "wrong point": "a slope is evaluated at the wrong point, such as the output for the input",
    "jacobian not transposed": "the Jacobian is applied where its transpose is needed: W for Wᵀ",
    "slice kept": "one part of a batch, head or group sum is kept, or one part is dropped",
    "scatter": "entries that share an index overwrite each other where they must add",
    "mask leak": "a gradient flows where a mask or the causal order lets nothing through",
    # the role of g
    "g ignored": "the result does not depend on g",
    "not linear in g": "the result is not linear in g",
    # conduct
    "overwritten": "an input, a residual or g is written to",
    "hidden state": "the result depends on something besides the residuals and g",
    "shared memory": "a result is a view of an input, of g or of a residual",
    "layout": "the result depends on how the inputs lie in memory",
    "edge shape": "the layer fails at a batch of one or none, or mixes the examples of a batch",
    "not refused": "an input that the layer cannot work with raises no error that names it",
    # numbers
    "precision": "right algebra, wrong rounding: a narrower or wider dtype, or a cancellation",
    "not finite": "NaN or infinity",
    "value": "forward computes something else than the reference",
    "unknown": "no signature and no replay matches",
}
