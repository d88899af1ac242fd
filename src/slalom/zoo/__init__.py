"""Networks to compile, names for what they recognise, and photos to show them.

What enters: a name (`catalogue`), a checkpoint file (`checkpoint`), a directory of photos (`photos`). What leaves:
plain `torch.nn.Module`s for the importer, and float32 arrays [3, height, width] for a session. This folder is offline
work on the owner's machine; it never sees a mask or a probe. `catalogue`, `classes` and `photos` import no torch.

Parameter names are torchvision's for VGG, ResNet and Inception, so that a checkpoint saved there loads here.
"""
