from functional_lm.testing import certify

test_certified = certify("prefix_tuning")
