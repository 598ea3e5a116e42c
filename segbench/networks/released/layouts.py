"""Parameter names of the authors' checkpoints, and ours: one table per family, read in both directions.

Source: names read in the checkpoints' state_dicts of ge-xing/SegMamba-V2, ge-xing/SegMamba,
MASILab/3DUX-Net, bakhtzadaabshare/BiSegMamba and nnU-Net v2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import nn

__all__ = ["LAYOUTS", "Layout", "Rule", "layout_of"]

FIELDS = {"rest": r".+", "leaf": r"weight|bias", "mamba": r"[\w.]+", "part": r"dw3|dw5|dwd|dwa|refine"}
"""What a `{field}` of a template stands for; any other field is an index."""


class Rule:
    """One line of a layout: the authors' template and ours, with the same `{fields}`."""

    def __init__(self, official: str, ours: str) -> None:
        self._forms = (official, ours)
        self._patterns = (_pattern(official), _pattern(ours))

    def to_ours(self, name: str) -> str | None:
        """Our name for an official one; None where this rule does not apply."""
        return self._translate(name, 0)

    def to_official(self, name: str) -> str | None:
        """The official name for one of ours; None where this rule does not apply."""
        return self._translate(name, 1)

    def _translate(self, name: str, side: int) -> str | None:
        found = self._patterns[side].fullmatch(name)
        return None if found is None else self._forms[1 - side].format(**found.groupdict())


def _pattern(template: str) -> re.Pattern[str]:
    fields = {name: FIELDS.get(name, "[0-9]+") for name in re.findall(r"\{(\w+)\}", template)}
    escaped = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(escaped.format(**{name: f"(?P<{name}>{form})" for name, form in fields.items()}))


class Layout:
    """The names of one family of checkpoints.

    Args:
        rules: The table; the first rule that applies translates a name. Empty where both sides agree.
        aliases: Gives the further official names under which a checkpoint repeats a tensor.
        canonical: Gives the official name that an alias repeats.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        *,
        aliases: Callable[[str], list[str]] = lambda name: [],
        canonical: Callable[[str], str] = lambda name: name,
    ) -> None:
        self.rules = tuple(rules)
        self.aliases = aliases
        self.canonical = canonical

    def to_ours(self, name: str) -> str | None:
        """Our name for an official one; None where the table does not know it."""
        return next((ours for rule in self.rules if (ours := rule.to_ours(name))), None)

    def to_official(self, name: str) -> str | None:
        """The official name for one of ours; None where the table does not know it."""
        return next((official for rule in self.rules if (official := rule.to_official(name))), None)


RESIDUAL = (
    ("conv1.conv.weight", "conv1.weight"),
    ("conv2.conv.weight", "conv2.weight"),
    ("conv3.conv.weight", "shortcut.weight"),
)


def _residual(official: str, ours: str) -> list[Rule]:
    """Rules of one residual block under two prefixes."""
    return [Rule(f"{official}.{theirs}", f"{ours}.{mine}") for theirs, mine in RESIDUAL]


def _frame(first: int, last: int = 1) -> list[Rule]:
    """Rules of the U around the encoder: skips (encoder2..5), decoder (decoder5..), head.

    Args:
        first: The number of the encoder whose block is our skip 0.
        last: The lowest number of an UpBlock in the decoder is `last + 1`.
    """
    rules: list[Rule] = []
    for k in range(4):
        rules += _residual(f"encoder{k + first}.layer", f"skips.{k}")
    for k in range(5 - last):
        rules.append(Rule(f"decoder{5 - k}.transp_conv.conv.weight", f"decoder.{k}.up.weight"))
        rules += _residual(f"decoder{5 - k}.conv_block", f"decoder.{k}.block")
    return [*rules, Rule("out.conv.conv.{leaf}", "head.{leaf}")]


def _stem_and_refine() -> list[Rule]:
    return [*_residual("encoder1.layer", "stem"), *_residual("decoder1.layer", "refine")]


def _side_outputs() -> list[Rule]:
    return [
        Rule("vit.mlps.{i}.fc1.{leaf}", "encoder.{i}.side.expand.{leaf}"),
        Rule("vit.mlps.{i}.fc2.{leaf}", "encoder.{i}.side.reduce.{leaf}"),
    ]


def _downs(prefix: str, *, norm: bool) -> list[Rule]:
    """Rules of halving layers: in the first stage the convolution leads, in the others the norm does."""
    rules = [Rule(f"{prefix}.0.0.{{leaf}}", "encoder.0.down.conv.{leaf}")]
    rules += [Rule(f"{prefix}.{i}.1.{{leaf}}", f"encoder.{i}.down.conv.{{leaf}}") for i in (1, 2, 3)]
    if norm:
        rules.append(Rule(f"{prefix}.0.1.{{leaf}}", "encoder.0.down.norm.{leaf}"))
        rules += [Rule(f"{prefix}.{i}.0.{{leaf}}", f"encoder.{i}.down.norm.{{leaf}}") for i in (1, 2, 3)]
    return rules


SEGMAMBA_V2 = Layout(
    [
        *_stem_and_refine(),
        *_frame(2),
        *_side_outputs(),
        Rule("vit.downsample_layers.{i}.0.{leaf}", "encoder.{i}.down.{leaf}"),
        Rule("vit.gscs.{i}.{j}.deep_path.{k}.block.0.{leaf}", "encoder.{i}.local.{j}.deep.{k}.conv.{leaf}"),
        Rule(
            "vit.gscs.{i}.{j}.shortcut_path.{k}.block.0.{leaf}", "encoder.{i}.local.{j}.short.{k}.conv.{leaf}"
        ),
        Rule("vit.gscs.{i}.{j}.se.fc.0.{leaf}", "encoder.{i}.local.{j}.gate.reduce.{leaf}"),
        Rule("vit.gscs.{i}.{j}.se.fc.2.{leaf}", "encoder.{i}.local.{j}.gate.expand.{leaf}"),
        Rule("vit.stages.{i}.{j}.norm.{leaf}", "encoder.{i}.toom.{j}.norm.{leaf}"),
        Rule("vit.stages.{i}.{j}.mamba.{mamba}", "encoder.{i}.toom.{j}.mamba.{mamba}"),
    ]
)

SEGMAMBA = Layout(
    [
        *_stem_and_refine(),
        *_frame(2),
        *_side_outputs(),
        *_downs("vit.downsample_layers", norm=False),
        Rule("vit.gscs.{i}.{rest}", "encoder.{i}.local.{rest}"),
        Rule("vit.stages.{i}.{j}.norm.{leaf}", "encoder.{i}.layers.{j}.norm.{leaf}"),
        Rule("vit.stages.{i}.{j}.mamba.{mamba}", "encoder.{i}.layers.{j}.mamba.{mamba}"),
    ]
)

UXNET = Layout(
    [
        *_stem_and_refine(),
        *_frame(2),
        *_downs("uxnet_3d.downsample_layers", norm=True),
        Rule("uxnet_3d.stages.{i}.{j}.dwconv.{leaf}", "encoder.{i}.blocks.{j}.depthwise.{leaf}"),
        Rule("uxnet_3d.stages.{i}.{j}.norm.{leaf}", "encoder.{i}.blocks.{j}.norm.{leaf}"),
        Rule("uxnet_3d.stages.{i}.{j}.pwconv1.{leaf}", "encoder.{i}.blocks.{j}.expand.{leaf}"),
        Rule("uxnet_3d.stages.{i}.{j}.pwconv2.{leaf}", "encoder.{i}.blocks.{j}.reduce.{leaf}"),
        Rule("uxnet_3d.stages.{i}.{j}.gamma", "encoder.{i}.blocks.{j}.scale"),
        Rule("uxnet_3d.norm{i}.{leaf}", "encoder.{i}.norm.{leaf}"),
    ]
)

BISEGMAMBA = Layout(
    [
        *_frame(2, last=2),
        *_side_outputs(),
        Rule("stem_patch.conv1.conv.weight", "stem.conv1.weight"),
        Rule("stem_patch.conv2.conv.weight", "stem.conv2.weight"),
        Rule("stem_patch.down1.0.weight", "stem.down1.weight"),
        Rule("stem_patch.refine.0.weight", "stem.refine.weight"),
        Rule("stem_patch.down2.0.weight", "stem.down2.weight"),
        Rule("vit.downsample_layers.{i}.reduction.weight", "encoder.{i}.down.reduction.weight"),
        Rule("vit.downsample_layers.{i}.norm.{leaf}", "encoder.{i}.down.norm.{leaf}"),
        Rule("vit.gscs.{i}.{j}.se.fc.0.{leaf}", "encoder.{i}.local.{j}.gate.reduce.{leaf}"),
        Rule("vit.gscs.{i}.{j}.se.fc.2.{leaf}", "encoder.{i}.local.{j}.gate.expand.{leaf}"),
        Rule("vit.gscs.{i}.{j}.gamma", "encoder.{i}.local.{j}.gamma"),
        Rule("vit.gscs.{i}.{j}.{part}.weight", "encoder.{i}.local.{j}.{part}.weight"),
        Rule("vit.stages.{i}.{j}.norm.{leaf}", "encoder.{i}.layers.{j}.norm.{leaf}"),
        Rule("vit.stages.{i}.{j}.mamba.{mamba}", "encoder.{i}.layers.{j}.mamba.{mamba}"),
        Rule("vit.stages.{i}.{j}.fb_logits", "encoder.{i}.layers.{j}.direction_logits"),
        Rule("vit.stages.{i}.{j}.fusion.gate.1.{leaf}", "encoder.{i}.layers.{j}.fusion.gate.reduce.{leaf}"),
        Rule("vit.stages.{i}.{j}.fusion.gate.3.{leaf}", "encoder.{i}.layers.{j}.fusion.gate.expand.{leaf}"),
        Rule("vit.stages.{i}.{j}.fusion.mix.0.weight", "encoder.{i}.layers.{j}.fusion.mix.weight"),
        Rule("vit.stages.{i}.{j}.fusion.se.fc.0.{leaf}", "encoder.{i}.layers.{j}.fusion.scale.reduce.{leaf}"),
        Rule("vit.stages.{i}.{j}.fusion.se.fc.2.{leaf}", "encoder.{i}.layers.{j}.fusion.scale.expand.{leaf}"),
        Rule("vit.stages.{i}.{j}.fusion.gamma", "encoder.{i}.layers.{j}.fusion.gamma"),
        Rule("final_up.up{i}.0.weight", "rise.up{i}.weight"),
        Rule("final_up.ref{i}.dw.weight", "rise.refine{i}.depthwise.weight"),
        Rule("final_up.ref{i}.pw.weight", "rise.refine{i}.pointwise.weight"),
        Rule("final_up.fuse.0.weight", "rise.fuse.weight"),
        Rule("final_up.fuse.3.conv.weight", "rise.last.weight"),
    ]
)


# nnU-Net registers a convolution and its norm a second time in a Sequential called all_modules, and the
# encoder a second time inside the decoder.
_CONV_OR_NORM = re.compile(r"(?P<block>(?!eva\.).+)\.(?P<part>conv|norm)\.(?P<leaf>weight|bias)")
_REPEATED = re.compile(r"(?P<block>.+)\.all_modules\.(?P<index>[01])\.(?P<leaf>weight|bias)")
_PARTS = {"conv": "0", "norm": "1"}


def _nnunet_aliases(name: str) -> list[str]:
    names = [name]
    if found := _CONV_OR_NORM.fullmatch(name):
        names.append(f"{found['block']}.all_modules.{_PARTS[found['part']]}.{found['leaf']}")
    if name.startswith("encoder."):
        names += [f"decoder.{other}" for other in names]
    return names[1:]


def _nnunet_canonical(name: str) -> str:
    name = name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
    if found := _REPEATED.fullmatch(name):
        part = "conv" if found["index"] == "0" else "norm"
        name = f"{found['block']}.{part}.{found['leaf']}"
    return name


NNUNET = Layout(aliases=_nnunet_aliases, canonical=_nnunet_canonical)

LAYOUTS: dict[str, Layout] = {
    "segmamba-v2": SEGMAMBA_V2,
    "segmamba": SEGMAMBA,
    "uxnet": UXNET,
    "bisegmamba": BISEGMAMBA,
    "nnunet": NNUNET,
}
"""Layouts by the `official_layout` that a network class names."""


SAME = Layout()
"""Keeps every name."""


def layout_of(network: nn.Module) -> Layout:
    """The layout that the network's class names; one that keeps every name where it names none."""
    name = getattr(network, "official_layout", None)
    return LAYOUTS[name] if isinstance(name, str) else SAME
