"""The doctor: what a pair is good for, before hours are spent on it.

    from latentshift.doctor.examine import examine
    for finding in examine(load("ring")).findings: print(finding.level, finding.what)

Every check is a function of a `Probe` (samples, scores and gradients of a few hundred seeds, made once) and returns what it
found; none trusts the card.
"""
