"""What runs inside the TEE: it keeps the secrets, checks every linear result, and does the non-linear work.

Enters: a plan, a user's images, claims of the device. Leaves: outputs whose every linear result was checked, and
towards the device only what the protection level allows. Must never see: torch, `device`, `importer`, an unchecked
verdict.

    policy       protection level, check, rounds: what the user chose, made consistent once
    randomness   the one source of secrets
    soundness    how improbable it is that a lie passes
    model        the plan as the trusted side keeps it
    probes       secret probes and their images
    checker      Claimed -> Verified, the one door
    masks        single-use masks and their images
    walk         one micro-batch through the network, as a generator of exchanges
    transport    how a walk's exchanges reach the device
    session      the whole, with an end
"""
