"""More networks: transformers over clips, volumes, stereo, recurrent heads; small, with random weights.

Their sizes are the least at which each operator of the full network still does its work. Nothing is downloaded.

This module imports none of the libraries; `ZooModel.build` does, when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo import own
from tests.zoo.models import ZooModel, _declare_torchvision_operators, _pytorchvideo, _seeded

__all__ = ["WIDE"]


class FramesFirst(nn.Module):
    """A Hugging Face network, which takes frames first (N, T, C, H, W), given N C T H W; its first result."""

    def __init__(self, network: nn.Module, name: str = "pixel_values", **fixed: Any) -> None:
        super().__init__()
        self.network, self.name, self.fixed = network, name, fixed

    def forward(self, clip: Tensor) -> Tensor:
        result: Tensor = self.network(**{self.name: clip.transpose(1, 2)}, **self.fixed)[0]
        return result


class VisionTower(nn.Module):
    """A vision tower of a VLM, which takes flat patches and a grid: here cut from the clip (N, C, T, H, W) as the
    processor would cut them."""

    def __init__(self, tower: nn.Module, patch: int, merge: int, temporal: int) -> None:
        super().__init__()
        self.tower, self.patch, self.merge, self.temporal = tower, patch, merge, temporal

    def forward(self, clip: Tensor) -> Tensor:
        n, c, t, h, w = clip.shape
        p, m, s = self.patch, self.merge, self.temporal
        grid = (t // s, h // p, w // p)
        x = clip.transpose(1, 2).reshape(n, grid[0], s, c, grid[1] // m, m, p, grid[2] // m, m, p)
        x = x.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(n * grid[0] * grid[1] * grid[2], c * s * p * p)
        result = self.tower(x, grid_thw=torch.tensor([grid] * n))
        merged: Tensor = result.pooler_output
        return merged


class VideoCodes(nn.Module):
    """The video tokenizer of Emu3: a clip (N, C, T, H, W) to the numbers of its codes, or codes to frames."""

    def __init__(self, network: nn.Module, decode: bool = False) -> None:
        super().__init__()
        self.network, self.decode = network, decode
        for unused in ("encoder", "quant_conv") if decode else ("decoder", "post_quant_conv"):
            setattr(network, unused, nn.Identity())

    def forward(self, clip: Tensor) -> Tensor:
        if self.decode:  # any clip as codes
            codes = (clip[:, 0] * 5).long() % self.network.config.codebook_size
            frames: Tensor = self.network.decode(codes)
            return frames
        hidden = self.network.encoder(clip.transpose(1, 2)).transpose(1, 2)
        features: Tensor = self.network.quant_conv(hidden)
        return features


def _huggingface(
    model: str, config: str, wrap: Callable[[nn.Module], nn.Module] = FramesFirst, **sizes: Any
) -> nn.Module:
    def create() -> nn.Module:
        _declare_torchvision_operators()  # transformers imports torchvision where it is installed
        import transformers

        network = getattr(transformers, model)(getattr(transformers, config)(**sizes))
        return wrap(network)

    return _seeded(create)


def _tower(model: str, config: str, merge: int = 2, temporal: int = 2, **sizes: Any) -> nn.Module:
    def create() -> nn.Module:
        _declare_torchvision_operators()
        import importlib

        folder = model.split(":")[0]
        models = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
        configs = importlib.import_module(f"transformers.models.{folder}.configuration_{folder}")
        tower = getattr(models, model.split(":")[1])._from_config(getattr(configs, config)(**sizes))
        return VisionTower(tower, sizes["patch_size"], merge, temporal)

    return _seeded(create)


def _monai(name: str, *args: Any, wrap: Callable[[nn.Module], nn.Module] | None = None, **options: Any) -> nn.Module:
    def create() -> nn.Module:
        _declare_torchvision_operators()
        from monai.networks import nets

        network: nn.Module = getattr(nets, name)(*args, **options)
        return wrap(network) if wrap else network

    return _seeded(create)


def _video(name: str, **options: Any) -> nn.Module:
    def create() -> nn.Module:
        _declare_torchvision_operators()
        from torchvision.models import video

        network: nn.Module = getattr(video, name)(weights=None, **options)
        return network

    return _seeded(create)


class Pick(nn.Module):
    """One of several results."""

    def __init__(self, network: nn.Module, place: int) -> None:
        super().__init__()
        self.network, self.place = network, place

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.network(*inputs)[self.place]
        return result


def _own(name: str) -> nn.Module:
    return _seeded(getattr(own, name))


_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def _one(name: str, build: Callable[[], nn.Module], *shapes: tuple[int, ...], refused: str = "") -> ZooModel:
    return ZooModel(name, build, shapes, refused=refused)


_CLIP = (1, 3, 8, 64, 64)
_VOLUME = (1, 1, 32, 32, 32)

WIDE: tuple[ZooModel, ...] = (
    _one("swin3d_t", partial(_video, "swin3d_t"), (1, 3, 8, 64, 64)),
    _one("swin3d_s", partial(_video, "swin3d_s"), (1, 3, 8, 64, 64)),
    _one("mvit_v1_b", partial(_video, "mvit_v1_b"), (1, 3, 16, 224, 224)),
    _one("mvit_v2_s", partial(_video, "mvit_v2_s"), (1, 3, 16, 224, 224)),
    _one("mvit_base_16x4", partial(_pytorchvideo, "mvit_base_16x4"), (1, 3, 16, 224, 224)),
    _one(
        "timesformer",
        partial(
            _huggingface, "TimesformerForVideoClassification", "TimesformerConfig", image_size=64, num_frames=8, **_VIT
        ),
        _CLIP,
    ),
    _one(
        "timesformer_joint",
        partial(
            _huggingface,
            "TimesformerForVideoClassification",
            "TimesformerConfig",
            image_size=64,
            num_frames=8,
            attention_type="joint_space_time",
            **_VIT,
        ),
        _CLIP,
    ),
    _one(
        "vivit",
        partial(_huggingface, "VivitForVideoClassification", "VivitConfig", image_size=64, num_frames=8, **_VIT),
        _CLIP,
    ),
    _one(
        "videomae",
        partial(_huggingface, "VideoMAEForVideoClassification", "VideoMAEConfig", image_size=64, num_frames=8, **_VIT),
        _CLIP,
    ),
    _one(
        "vjepa2",
        partial(
            _huggingface,
            "VJEPA2Model",
            "VJEPA2Config",
            wrap=partial(FramesFirst, name="pixel_values_videos", skip_predictor=True),
            crop_size=64,
            frames_per_clip=8,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            pred_hidden_size=48,
            pred_num_hidden_layers=2,
            pred_num_attention_heads=2,
        ),
        _CLIP,
    ),
    _one(
        "vjepa2_classes",
        partial(
            _huggingface,
            "VJEPA2ForVideoClassification",
            "VJEPA2Config",
            wrap=partial(FramesFirst, name="pixel_values_videos"),
            crop_size=64,
            frames_per_clip=8,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_pooler_layers=1,
            pred_hidden_size=48,
            pred_num_hidden_layers=1,
            pred_num_attention_heads=2,
        ),
        _CLIP,
    ),
    _one(
        "qwen2_vl_tower",
        partial(
            _tower,
            "qwen2_vl:Qwen2VisionTransformerPretrainedModel",
            "Qwen2VLVisionConfig",
            depth=2,
            embed_dim=32,
            hidden_size=48,
            num_heads=2,
            patch_size=14,
        ),
        (1, 3, 4, 56, 56),
    ),
    _one(
        "qwen2_5_vl_tower",
        partial(
            _tower,
            "qwen2_5_vl:Qwen2_5_VisionTransformerPretrainedModel",
            "Qwen2_5_VLVisionConfig",
            depth=2,
            hidden_size=32,
            out_hidden_size=48,
            intermediate_size=48,
            num_heads=2,
            patch_size=14,
            window_size=56,
            fullatt_block_indexes=[1],
        ),
        (1, 3, 4, 56, 84),
    ),
    _one(
        "qwen3_vl_tower",
        partial(
            _tower,
            "qwen3_vl:Qwen3VLVisionModel",
            "Qwen3VLVisionConfig",
            depth=2,
            hidden_size=32,
            out_hidden_size=48,
            intermediate_size=48,
            num_heads=2,
            patch_size=16,
            deepstack_visual_indexes=[0],
            num_position_embeddings=16,
        ),
        (1, 3, 4, 64, 64),
    ),
    _one(
        "glm4v_tower",
        partial(
            _tower,
            "glm4v:Glm4vVisionModel",
            "Glm4vVisionConfig",
            depth=2,
            hidden_size=32,
            out_hidden_size=48,
            intermediate_size=48,
            num_heads=2,
            patch_size=14,
        ),
        (1, 3, 2, 56, 84),
    ),
    _one(
        "hunyuan_vl_tower",
        partial(
            _tower,
            "hunyuan_vl:HunYuanVLVisionTransformer",
            "HunYuanVLVisionConfig",
            temporal=1,
            num_hidden_layers=2,
            hidden_size=32,
            out_hidden_size=48,
            text_hidden_size=48,
            intermediate_size=48,
            num_attention_heads=2,
            patch_size=16,
        ),
        (1, 3, 1, 64, 96),
    ),
    _one(
        "videoprism",
        partial(
            _huggingface,
            "VideoPrismVisionModel",
            "VideoPrismVisionConfig",
            wrap=partial(FramesFirst, name="pixel_values_videos"),
            image_size=36,
            num_frames=4,
            hidden_size=32,
            num_attention_heads=4,
            intermediate_size=64,
            num_spatial_layers=2,
            num_temporal_layers=1,
            num_auxiliary_layers=1,
        ),
        (1, 3, 4, 36, 36),
    ),
    *(
        _one(
            f"emu3_video_{name}",
            partial(
                _huggingface,
                "Emu3VQVAE",
                "Emu3VQVAEConfig",
                wrap=partial(VideoCodes, decode=name == "decoder"),
                codebook_size=16,
                embed_dim=4,
                base_channels=32,
                channel_multiplier=(1, 1, 2),
                num_res_blocks=1,
                hidden_size=64,
                temporal_downsample_factor=2,
            ),
            shape,
        )
        for name, shape in (("encoder", (1, 3, 4, 16, 16)), ("decoder", (1, 1, 2, 4, 4)))
    ),
    _one("unet3d", partial(_monai, "UNet", 3, 1, 3, (8, 16, 32), (2, 2), num_res_units=2), _VOLUME),
    _one("basic_unet", partial(_monai, "BasicUNet", 3, 1, 3, (8, 8, 16, 16, 32, 8)), _VOLUME),
    _one(
        "basic_unet_pp",
        partial(_monai, "BasicUNetPlusPlus", 3, 1, 3, (8, 8, 16, 16, 32, 8), deep_supervision=True),
        _VOLUME,
    ),
    _one("attention_unet", partial(_monai, "AttentionUnet", 3, 1, 3, (8, 16, 32), (2, 2)), _VOLUME),
    _one(
        "dynunet",
        partial(_monai, "DynUNet", 3, 1, 3, (3, 3, 3), (1, 2, 2), (2, 2), filters=(8, 16, 32), deep_supervision=False),
        _VOLUME,
    ),
    _one("vnet", partial(_monai, "VNet", 3, 1, 3), _VOLUME),
    _one("segresnet", partial(_monai, "SegResNet", 3, 8, 1, 3, blocks_down=(1, 2, 2), blocks_up=(1, 1)), _VOLUME),
    _one(
        "segresnet_nontrainable",
        partial(_monai, "SegResNet", 3, 8, 1, 3, blocks_down=(1, 2), blocks_up=(1,), upsample_mode="nontrainable"),
        _VOLUME,
    ),
    _one("unetr", partial(_monai, "UNETR", 1, 3, (32, 32, 32), 8, 48, 96, 4), _VOLUME),
    _one("swin_unetr", partial(_monai, "SwinUNETR", 1, 3, feature_size=12, use_v2=True), (1, 1, 64, 64, 64)),
    _one(
        "mednext",
        partial(
            _monai,
            "MedNeXt",
            3,
            4,
            1,
            3,
            blocks_down=(1, 1, 1, 1),
            blocks_up=(1, 1, 1, 1),
            blocks_bottleneck=1,
            encoder_expansion_ratio=2,
            decoder_expansion_ratio=2,
        ),
        _VOLUME,
    ),
    _one("densenet3d", partial(_monai, "DenseNet", 3, 1, 3, 8, 8, (2, 2)), _VOLUME),
    _one(
        "seresnet3d",
        partial(_monai, "SEResNet50", spatial_dims=3, in_channels=1, num_classes=3, layers=(1, 1, 1, 1)),
        _VOLUME,
    ),
    _one("voxelmorph", partial(_monai, "VoxelMorph"), _VOLUME, _VOLUME),
    _one("highresnet", partial(_monai, "HighResNet", 3, 1, 3), (1, 1, 16, 16, 16)),
    _one(
        "autoencoder_kl",
        partial(_monai, "AutoencoderKL", 3, 1, 1, (1, 1), (8, 8), (False, True), 4, norm_num_groups=4),
        (1, 1, 16, 16, 16),
        refused="aten.randn_like.default",
    ),
    _one(
        "vit3d",
        partial(
            _monai, "ViT", 1, (32, 32, 32), (8, 8, 8), 48, 96, 2, 4, classification=True, wrap=partial(Pick, place=0)
        ),
        _VOLUME,
    ),
    _one("psmnet", partial(_own, "PsmNet"), (1, 3, 32, 64), (1, 3, 32, 64)),
    _one("gwc_topk_stereo", partial(_own, "CorrelationStereo"), (1, 3, 32, 64), (1, 3, 32, 64)),
    _one("grid_warp", partial(_own, "GridWarp"), (1, 2, 8, 12, 10)),
    _one("raft_lookup", partial(_own, "RaftLookup"), (1, 3, 2, 32, 40)),
    _one("tsm", partial(_own, "TemporalShift"), (1, 3, 8, 32, 32)),
    _one("temporal_difference", partial(_own, "TemporalDifference"), (1, 3, 8, 16, 16)),
    _one("lstm_gru_head", partial(_own, "ConvLstmHead"), (1, 3, 8, 16, 16)),
    _one("non_local", partial(_own, "NonLocal3d"), (1, 3, 4, 16, 16)),
    _one("top_k_frames", partial(_own, "TopKFrames"), (1, 3, 8, 16, 16)),
    _one("temporal_conv1d", partial(_own, "TemporalConv1d"), (1, 3, 8, 16, 16)),
)
