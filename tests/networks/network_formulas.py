"""The networks once more, as literal formulas on official checkpoints: the oracle of the fidelity tests.

Written from the descriptions of the structures and from nothing in segbench.networks: plain functions on a
dict of tensors under the authors' names, norms by their definition, tokens by nested loops, the scan step by
step. Float64, slow, no module anywhere.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch.nn import functional as F


def inorm(x):
    mean = x.mean(dim=(2, 3, 4), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(2, 3, 4), keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


def affine_inorm(w, p, x):
    shape = (1, -1, 1, 1, 1)
    return inorm(x) * w[f"{p}.weight"].reshape(shape) + w[f"{p}.bias"].reshape(shape)


def layer_norm_last(x, weight, bias, eps):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def leaky(x):
    return torch.where(x > 0, x, 0.01 * x)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def silu(x):
    return x / (1 + torch.exp(-x))


def softplus(x):
    return torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0)


def conv(w, p, x, **how):
    return F.conv3d(x, w[f"{p}.weight"], w.get(f"{p}.bias"), **how)


# ---------------------------------------------------------------- shared blocks


def res_block(w, p, x):
    y = leaky(inorm(conv(w, f"{p}.conv1.conv", x, padding=1)))
    y = inorm(conv(w, f"{p}.conv2.conv", y, padding=1))
    kept = inorm(conv(w, f"{p}.conv3.conv", x)) if f"{p}.conv3.conv.weight" in w else x
    return leaky(y + kept)


def up_block(w, p, x, skip):
    up = F.conv_transpose3d(x, w[f"{p}.transp_conv.conv.weight"], stride=2)
    return res_block(w, f"{p}.conv_block", torch.cat([up, skip], 1))


def squeeze_excite(w, p, x):
    m = x.mean(dim=(2, 3, 4))
    m = torch.relu(m @ w[f"{p}.fc.0.weight"].T + w[f"{p}.fc.0.bias"])
    g = 1 / (1 + torch.exp(-(m @ w[f"{p}.fc.2.weight"].T + w[f"{p}.fc.2.bias"])))
    return x * g[:, :, None, None, None]


def side(w, i, x):
    return conv(w, f"vit.mlps.{i}.fc2", gelu(conv(w, f"vit.mlps.{i}.fc1", inorm(x))))


def frame(w, stem, sides):
    """Skips encoder2..5, decoder5..2, decoder1, head."""
    s = [res_block(w, f"encoder{i + 2}.layer", o) for i, o in enumerate(sides)]
    y = up_block(w, "decoder5", s[3], s[2])
    y = up_block(w, "decoder4", y, s[1])
    y = up_block(w, "decoder3", y, s[0])
    y = up_block(w, "decoder2", y, stem)
    return conv(w, "out.conv.conv", res_block(w, "decoder1.layer", y))


# ---------------------------------------------------------------- Mamba


def scan(u, dt, A, B, C, D):
    """h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t; y_t = <C_t, h_t> + D u_t. u, dt (b, l, d); B, C (b, l, n)."""
    h = torch.zeros(u.shape[0], u.shape[2], A.shape[1], dtype=u.dtype)
    out = []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[:, :, None] * B[:, t, None, :]
        out.append((h * C[:, t, None, :]).sum(-1) + D * u[:, t])
    return torch.stack(out, 1)


def directed(w, p, s, x, z):
    """One pass of a Mamba with suffix s on the halves of in_proj, before out_proj."""
    taps = w[f"{p}.conv1d{s}.weight"]
    y = F.conv1d(F.pad(x.transpose(1, 2), (3, 0)), taps, w[f"{p}.conv1d{s}.bias"], groups=taps.shape[0])
    x = silu(y.transpose(1, 2))
    low = x @ w[f"{p}.x_proj{s}.weight"].T
    rank = w[f"{p}.dt_proj{s}.weight"].shape[1]
    n = (low.shape[-1] - rank) // 2
    dt, B, C = low[..., :rank], low[..., rank : rank + n], low[..., rank + n :]
    dt = softplus(dt @ w[f"{p}.dt_proj{s}.weight"].T + w[f"{p}.dt_proj{s}.bias"])
    A = -torch.exp(w[f"{p}.A{s}_log"])
    return scan(x, dt, A, B, C, w[f"{p}.D{s}"]) * silu(z)


def mamba(w, p, tokens):
    xz = tokens @ w[f"{p}.in_proj.weight"].T
    half = xz.shape[-1] // 2
    return directed(w, p, "", xz[..., :half], xz[..., half:]) @ w[f"{p}.out_proj.weight"].T


ORDERS = {
    1: lambda a, b, c: [(i, j, k) for i in range(a) for j in range(b) for k in range(c)],
    2: lambda a, b, c: [(i, j, k) for j in range(b) for i in range(a) for k in range(c)],
    3: lambda a, b, c: [(i, j, k) for k in range(c) for j in range(b) for i in range(a)],
}
"""The voxels in the order in which scan 1, 2, 3 walks them, by loops over the axes (a, b, c)."""


def walked(x, order):
    """Tokens (b, l, c) of a volume, voxel by voxel, and the index that puts them back."""
    a, b, c = x.shape[2:]
    flat = torch.tensor([(i * b + j) * c + k for i, j, k in ORDERS[order](a, b, c)])
    return x.flatten(2)[:, :, flat].transpose(1, 2), flat


def unwalked(tokens, flat, size):
    y = torch.zeros(tokens.shape[0], tokens.shape[2], tokens.shape[1], dtype=tokens.dtype)
    return y.index_copy(2, flat, tokens.transpose(1, 2)).reshape(*y.shape[:2], *size)


def oriented_scans(w, p, x, direction=1):
    """The three scans of LN(x), each back in place. direction -1 walks backwards."""
    result = []
    for order in (1, 2, 3):
        tokens, flat = walked(x, order)
        t = layer_norm_last(tokens, w[f"{p}.norm.weight"], w[f"{p}.norm.bias"], 1e-5)
        s = mamba(w, f"{p}.mamba", t if direction == 1 else t.flip(1))
        result.append(unwalked(s if direction == 1 else s.flip(1), flat, x.shape[2:]))
    return result


def toom(w, p, x):
    s1, s2, s3 = oriented_scans(w, p, x)
    return x + s1 + s2 + s3


def toom_bidirectional(w, p, x):
    ahead, back = oriented_scans(w, p, x), oriented_scans(w, p, x, -1)
    return x + sum((f + b) / 2 for f, b in zip(ahead, back, strict=True))


# ---------------------------------------------------------------- SegMamba-V2


def large_kernel(w, p, x):
    def unit(q, y, **how):
        return torch.relu(inorm(conv(w, f"{p}.{q}.block.0", y, **how)))

    deep = unit("deep_path.0", x, padding=2)
    deep = unit("deep_path.1", deep, padding=1)
    deep = unit("deep_path.2", deep, padding=2, dilation=2)
    short = unit("shortcut_path.1", unit("shortcut_path.0", x, padding=1))
    return squeeze_excite(w, f"{p}.se", deep + short + x)


def segmamba_v2(w, x, depths, layer=toom):
    stem = res_block(w, "encoder1.layer", x)
    y, sides = stem, []
    for i, depth in enumerate(depths):
        y = conv(w, f"vit.downsample_layers.{i}.0", y, stride=2, padding=1)
        for j in range(depth):
            y = large_kernel(w, f"vit.gscs.{i}.{j}", y)
        if i >= 2:
            for j in range(depth):
                y = layer(w, f"vit.stages.{i}.{j}", y)
        sides.append(side(w, i, y))
    return frame(w, stem, sides)


# ---------------------------------------------------------------- SegMamba V1


def gsc_v1(w, p, x):
    def unit(q, y, padding):
        return torch.relu(inorm(conv(w, f"{p}.{q}", y, padding=padding)))

    a = unit("proj2", unit("proj", x, 1), 1)
    b = unit("proj3", x, 0)
    return x + unit("proj4", a + b, 0)


def mamba_v1(w, p, tokens, slices):
    xz = tokens @ w[f"{p}.in_proj.weight"].T
    half, length = xz.shape[-1] // 2, xz.shape[1]
    x, z = xz[..., :half], xz[..., half:]
    chunk = length // slices
    place = torch.empty(length, dtype=torch.long)
    for s, j in itertools.product(range(slices), range(chunk)):
        place[s * chunk + j] = j * slices + s
    source = torch.argsort(place)
    one = directed(w, p, "", x, z)
    two = directed(w, p, "_b", x.flip(1), z.flip(1)).flip(1)
    three = directed(w, p, "_s", x[:, source], z[:, source])[:, place]
    return (one + two + three) @ w[f"{p}.out_proj.weight"].T


def segmamba_v1(w, x, depths, slices):
    stem = res_block(w, "encoder1.layer", x)
    y, sides = x, []
    for i, depth in enumerate(depths):
        if i == 0:
            y = conv(w, "vit.downsample_layers.0.0", y, stride=2, padding=3)
        else:
            y = conv(w, f"vit.downsample_layers.{i}.1", inorm(y), stride=2)
        y = gsc_v1(w, f"vit.gscs.{i}", y)
        for j in range(depth):
            p = f"vit.stages.{i}.{j}"
            tokens = y.flatten(2).transpose(1, 2)
            t = layer_norm_last(tokens, w[f"{p}.norm.weight"], w[f"{p}.norm.bias"], 1e-5)
            y = y + mamba_v1(w, f"{p}.mamba", t, slices[i]).transpose(1, 2).reshape(y.shape)
        sides.append(side(w, i, y))
    return frame(w, stem, sides)


# ---------------------------------------------------------------- 3D UX-Net


def channel_norm(w, p, x):
    return layer_norm_last(x.movedim(1, -1), w[f"{p}.weight"], w[f"{p}.bias"], 1e-6).movedim(-1, 1)


def uxnet(w, x, depths):
    stem = res_block(w, "encoder1.layer", x)
    y, sides = x, []
    for i, depth in enumerate(depths):
        d = f"uxnet_3d.downsample_layers.{i}"
        if i == 0:
            y = channel_norm(w, f"{d}.1", conv(w, f"{d}.0", y, stride=2, padding=3))
        else:
            y = conv(w, f"{d}.1", channel_norm(w, f"{d}.0", y), stride=2)
        for j in range(depth):
            p, channels = f"uxnet_3d.stages.{i}.{j}", y.shape[1]
            z = conv(w, f"{p}.dwconv", y, padding=3, groups=channels)
            z = gelu(conv(w, f"{p}.pwconv1", channel_norm(w, f"{p}.norm", z), groups=channels))
            z = conv(w, f"{p}.pwconv2", z, groups=channels)
            y = y + w[f"{p}.gamma"].reshape(1, -1, 1, 1, 1) * z
        sides.append(channel_norm(w, f"uxnet_3d.norm{i}", y))
    return frame(w, stem, sides)


# ---------------------------------------------------------------- BiSegMamba


def bi_mixer(w, p, x):
    c = x.shape[1]
    y = gelu(inorm(conv(w, f"{p}.dw3", x, padding=1, groups=c)))
    y = y + gelu(inorm(conv(w, f"{p}.dw5", x, padding=2, groups=c)))
    y = y + gelu(inorm(conv(w, f"{p}.dwd", x, padding=2, dilation=2, groups=c)))
    if f"{p}.dwa.weight" in w:
        y = y + gelu(inorm(conv(w, f"{p}.dwa", x, padding=(0, 2, 2), groups=c)))
    y = squeeze_excite(w, f"{p}.se", gelu(inorm(conv(w, f"{p}.refine", y, padding=1, groups=c))))
    return x + w[f"{p}.gamma"] * y


def bi_fusion(w, p, scans):
    c = scans[0].shape[1]
    together = torch.cat(scans, 1)
    m = together.mean(dim=(2, 3, 4), keepdim=True)
    g = conv(w, f"{p}.gate.3", gelu(conv(w, f"{p}.gate.1", m)))
    e = [torch.exp(g[:, k * c : (k + 1) * c]) for k in range(3)]
    total = e[0] + e[1] + e[2]
    weighted = torch.cat([scans[k] * (e[k] / total) for k in range(3)], 1)
    y = squeeze_excite(w, f"{p}.se", gelu(inorm(conv(w, f"{p}.mix.0", weighted))))
    return y * w[f"{p}.gamma"]


def bi_layer(w, p, x):
    scans = oriented_scans(w, p, x)
    if f"{p}.fb_logits" in w:
        back = oriented_scans(w, p, x, -1)
        mixed = []
        for k in range(3):
            f, b = torch.exp(w[f"{p}.fb_logits"][k])
            shape = (1, -1, 1, 1, 1)
            mixed.append(scans[k] * (f / (f + b)).reshape(shape) + back[k] * (b / (f + b)).reshape(shape))
        scans = mixed
    return x + bi_fusion(w, f"{p}.fusion", scans)


def space_to_channel(w, p, x):
    b, c, d, h, v = x.shape
    folded = torch.zeros(b, c * 8, d // 2, h // 2, v // 2, dtype=x.dtype)
    for ch, pd, ph, pw in itertools.product(range(c), range(2), range(2), range(2)):
        folded[:, ch * 8 + pd * 4 + ph * 2 + pw] = x[:, ch, pd::2, ph::2, pw::2]
    return gelu(affine_inorm(w, f"{p}.norm", conv(w, f"{p}.reduction", folded)))


def bisegmamba(w, x, depths):
    def relu_norm(y):
        return torch.relu(inorm(y))

    y = relu_norm(conv(w, "stem_patch.conv1.conv", x, padding=2))
    stem = relu_norm(conv(w, "stem_patch.conv2.conv", y, padding=1))
    y = relu_norm(conv(w, "stem_patch.down1.0", stem, stride=2, padding=1))
    y = y + gelu(inorm(conv(w, "stem_patch.refine.0", y, padding=1, groups=y.shape[1])))
    y = relu_norm(conv(w, "stem_patch.down2.0", y, stride=2, padding=1))
    s = []
    for i, depth in enumerate(depths):
        if i:
            y = space_to_channel(w, f"vit.downsample_layers.{i}", y)
        if i != 2:
            for j in range(depth):
                y = bi_mixer(w, f"vit.gscs.{i}.{j}", y)
        if i >= 2:
            for j in range(depth):
                y = bi_layer(w, f"vit.stages.{i}.{j}", y)
        s.append(res_block(w, f"encoder{i + 2}.layer", side(w, i, y)))
    y = up_block(w, "decoder5", s[3], s[2])
    y = up_block(w, "decoder4", y, s[1])
    y = up_block(w, "decoder3", y, s[0])
    for k in (1, 2):
        y = relu_norm(F.conv_transpose3d(y, w[f"final_up.up{k}.0.weight"], stride=2))
        z = conv(w, f"final_up.ref{k}.dw", gelu(inorm(y)), padding=1, groups=y.shape[1])
        y = y + conv(w, f"final_up.ref{k}.pw", z)
    y = relu_norm(conv(w, "final_up.fuse.0", torch.cat([y, stem], 1)))
    y = relu_norm(conv(w, "final_up.fuse.3.conv", y, padding=1))
    return conv(w, "out.conv.conv", y)


# ---------------------------------------------------------------- nnU-Net family


def conv_norm_act(w, p, x, stride=1):
    return leaky(affine_inorm(w, f"{p}.norm", conv(w, f"{p}.conv", x, stride=stride, padding=1)))


def nnunet_decoder(w, skips, convs):
    y, logits = skips[-1], []
    for s in range(len(skips) - 1):
        p = f"decoder.transpconvs.{s}"
        up = F.conv_transpose3d(y, w[f"{p}.weight"], w[f"{p}.bias"], stride=2)
        y = torch.cat([up, skips[-2 - s]], 1)
        for k in range(convs):
            y = conv_norm_act(w, f"decoder.stages.{s}.convs.{k}", y)
        logits.append(conv(w, f"decoder.seg_layers.{s}", y))
    return logits[::-1]


def nnunet(w, x, stages):
    skips, y = [], x
    for s in range(stages):
        y = conv_norm_act(w, f"encoder.stages.{s}.0.convs.0", y, stride=1 if s == 0 else 2)
        y = conv_norm_act(w, f"encoder.stages.{s}.0.convs.1", y)
        skips.append(y)
    return nnunet_decoder(w, skips, 2)


def block_d(w, p, x, stride):
    y = conv_norm_act(w, f"{p}.conv1", x, stride=stride)
    y = affine_inorm(w, f"{p}.conv2.norm", conv(w, f"{p}.conv2.conv", y, padding=1))
    kept = x
    if stride == 2:
        kept = sum(kept[:, :, i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)) / 8
    q = f"{p}.skip.{1 if stride == 2 else 0}"
    if f"{q}.conv.weight" in w:
        kept = affine_inorm(w, f"{q}.norm", conv(w, f"{q}.conv", kept))
    return leaky(y + kept)


def resenc(w, x, blocks):
    skips, y = [], conv_norm_act(w, "encoder.stem.convs.0", x)
    for s, count in enumerate(blocks):
        for b in range(count):
            y = block_d(w, f"encoder.stages.{s}.blocks.{b}", y, 2 if s > 0 and b == 0 else 1)
        skips.append(y)
    return nnunet_decoder(w, skips, 1)


def basic_block(w, p, x, stride=1):
    y = leaky(affine_inorm(w, f"{p}.norm1", conv(w, f"{p}.conv1", x, stride=stride, padding=1)))
    y = affine_inorm(w, f"{p}.norm2", conv(w, f"{p}.conv2", y, padding=1))
    kept = conv(w, f"{p}.conv3", x, stride=stride) if f"{p}.conv3.weight" in w else x
    return leaky(y + kept)


def doubled(x):
    for axis in (2, 3, 4):
        x = x.repeat_interleave(2, axis)
    return x


def stunet(w, x, stages, blocks):
    skips, y = [], x
    for s in range(stages):
        for b in range(blocks):
            y = basic_block(w, f"conv_blocks_context.{s}.{b}", y, 2 if s > 0 and b == 0 else 1)
        skips.append(y)
    logits = []
    for u in range(stages - 1):
        up = conv(w, f"upsample_layers.{u}.conv", doubled(y))
        y = torch.cat([up, skips[-2 - u]], 1)
        for b in range(blocks):
            y = basic_block(w, f"conv_blocks_localization.{u}.{b}", y)
        logits.append(conv(w, f"seg_outputs.{u}", y))
    return logits[::-1]


def umamba(w, x, counts, decoder_counts):
    def chain(p, y, count, stride):
        y = basic_block(w, f"{p}.0", y, stride)
        for b in range(1, count):
            y = block_d(w, f"{p}.{b}", y, 1)
        return y

    y, skips = chain("encoder.stem", x, counts[0], 1), []
    for s, count in enumerate(counts):
        y = chain(f"encoder.stages.{s}", y, count, 1 if s == 0 else 2)
        skips.append(y)
    if "mamba_layer.norm.weight" in w:
        tokens = y.flatten(2).transpose(1, 2)
        t = layer_norm_last(tokens, w["mamba_layer.norm.weight"], w["mamba_layer.norm.bias"], 1e-5)
        y = mamba(w, "mamba_layer.mamba", t).transpose(1, 2).reshape(y.shape)
    logits = []
    for s, count in enumerate(decoder_counts):
        up = conv(w, f"decoder.upsample_layers.{s}.conv", doubled(y))
        y = chain(f"decoder.stages.{s}", torch.cat([up, skips[-2 - s]], 1), count, 1)
        logits.append(conv(w, f"decoder.seg_layers.{s}", y))
    return logits[::-1]
