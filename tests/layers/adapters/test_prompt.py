from functional_lm.testing import certify

test_certified = certify("prompt")
