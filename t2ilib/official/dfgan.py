"""DF-GAN's released files: their names, and sizes from shapes."""

from collections import Counter

from t2ilib.models.dfgan import DFGANConfig
from t2ilib.official.released import Entries, Released, vote


def config(entries: Entries) -> DFGANConfig:
    """Return the sizes that DF-GAN's entries (our names) agree on; an entry or a network may be absent or misshapen."""
    shapes = {name: value.shape for name, value in entries.items()}
    widths = {"discriminator.start.weight": 0, "discriminator.start.bias": 0, "generator.picture.1.weight": 1}
    found = [shapes[name][axis] for name, axis in widths.items() if name in shapes]
    nf = vote(found + [shape[0] // 2 for name, shape in shapes.items() if name == "discriminator.head.joint.0.weight"])
    blocks = {tuple(name.split(".")[:3:2]) for name in shapes if ".blocks." in name}
    count = max(Counter(network for network, _ in blocks).values())
    sizes = {"image_size": 4 * 2**count, "nf": nf}
    if "discriminator.head.joint.0.weight" in shapes:
        sizes["embedding_dim"] = shapes["discriminator.head.joint.0.weight"][1] - nf * min(2**count, 8)
    conditions = [shape[1] for name, shape in shapes.items() if name.endswith(("scale.0.weight", "shift.0.weight"))]
    if "generator.start.weight" in shapes:
        sizes["noise_dim"] = shapes["generator.start.weight"][1]
        sizes["embedding_dim"] = vote(conditions) - sizes["noise_dim"]
    elif conditions:
        sizes["noise_dim"] = vote(conditions) - sizes["embedding_dim"]
    return DFGANConfig(**sizes)


DFGAN = Released(
    networks={"netG": "generator", "netD": "discriminator", "netC": "head"},
    names={
        "generator.fc.": "generator.start.",
        "generator.GBlocks.": "generator.blocks.",
        "generator.to_rgb.": "generator.picture.",
        "discriminator.conv_img.": "discriminator.start.",
        "discriminator.DBlocks.": "discriminator.blocks.",
        "head.joint_conv.": "discriminator.head.joint.",
    },
    parts={
        ".fuse1.": ".fusions.0.",
        ".fuse2.": ".fusions.1.",
        ".affine0.": ".affines.0.",
        ".affine1.": ".affines.1.",
        ".fc_gamma.linear1.": ".scale.0.",
        ".fc_gamma.linear2.": ".scale.2.",
        ".fc_beta.linear1.": ".shift.0.",
        ".fc_beta.linear2.": ".shift.2.",
        ".c1.": ".convolutions.0.",
        ".c2.": ".convolutions.1.",
        ".c_sc.": ".shortcut.",
        ".conv_r.": ".residual.",
        ".conv_s.": ".skip.",
        ".gamma": ".gain",
    },
    config=config,
)
