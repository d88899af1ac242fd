"""The workers of a session, as the trusted process sees them: started, reached, lost, kept away from.

Enters: places, a plan. Leaves: devices behind links. Must never see: an image, a claim, a secret. Never imports torch.

    process    one confined worker process, from its start to its end
    spawned    a device in such a process
    roster     which workers a session may use, and which it may not any more
"""
