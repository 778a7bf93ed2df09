"""The first half of the zoo, by the kind of layer."""

from . import attentions, conduct, entrywise, linear_maps, norms, sequences, tables_and_losses

FIRST = [
    *linear_maps.BUGS,
    *norms.BUGS,
    *attentions.BUGS,
    *entrywise.BUGS,
    *sequences.BUGS,
    *tables_and_losses.BUGS,
    *conduct.BUGS,
]
