from functional_lm.testing import certify

test_certified = certify("mixture_of_experts")
