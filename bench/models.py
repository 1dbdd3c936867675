"""Networks that others wrote: how each is made and what it is called with, without a download.

`bench_models.py` counts them as PyTorch modules. Weights are random, inputs are drawn, and both follow a seed.
Nothing is made, and no library is imported, before it is asked for.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

SEED = 0
BOXES = 5  # that a detector keeps
Inputs = tuple[Any, ...] | dict[str, Any]  # positional arguments, or keyword arguments
Made = tuple[Any, Inputs]


class Model(NamedTuple):
    """A network: its name, its family, and the function that makes the module and what it is called with."""

    name: str
    family: str
    make: Callable[[], Made]


def models(family: str = "", only: str = "") -> list[Model]:
    """Return the networks of the families whose names begin with `family`.

    Args:
        family: such as "torchvision", "torchvision.detection", "timm" or "transformers"; "" for all.
        only: comma-separated names; "" for all.
    """
    lists = [
        LISTS[library]() for library in LISTS if f"{library}.".startswith(family) or family.startswith(library)
    ]
    found = [model for each in lists for model in each if model.family.startswith(family)]
    names = only.split(",") if only else []
    return [model for model in found if not names or model.name in names]


def make(model: Model, device: str = "cpu") -> Made:
    """Return the module, in evaluation mode, and what it is called with; the same ones in every process.

    Args:
        model: one of `models()`.
        device: "meta" makes arrays without memory.
    """
    torch = import_module("torch")
    torch.manual_seed(SEED)
    try:
        with torch.device(device):
            module, inputs = model.make()
    except NotImplementedError:  # RegNets compute their widths with arrays, which need elements
        module, inputs = model.make()
        module, inputs = module.to(device), tuple(x.to(device) for x in inputs)
    return module.eval(), inputs


def published(model: Model) -> list[float]:
    """Return published figures in billions of MACs: of torchvision alone, of inputs as made here."""
    if not model.family.startswith("torchvision"):
        return []
    weights = import_module("torchvision.models").get_model_weights(model.name)
    classifies = model.family == "torchvision.classification"
    return list({each.meta["_ops"]: 0 for each in weights if not classifies or _crop(each) == _side(model.name)})


def _image(side: int, batch: int = 1) -> Any:
    return import_module("torch").randn(batch, 3, side, side)


def _words(length: int = 16, vocabulary: int = 90) -> Any:
    return import_module("torch").randint(3, vocabulary, (1, length))


# torchvision: every model that it lists, with inputs of the size that its published figures are of.

_FILM_SIDES = {"mvit_v1_b": 224, "mvit_v2_s": 224, "s3d": 224, "swin3d_b": 224, "swin3d_s": 224, "swin3d_t": 224}


def _torchvision() -> list[Model]:
    library = import_module("torchvision.models")
    return [_torchvision_model(name, library.get_model_builder(name).__module__) for name in library.list_models()]


def _torchvision_model(name: str, place: str) -> Model:
    part = place.split(".")[2]
    kind = part if part in _TORCHVISION else "classification"
    return Model(name, f"torchvision.{kind}", partial(_TORCHVISION[kind], name))


def _of_torchvision(name: str, **settings: Any) -> Any:
    return import_module("torchvision.models").get_model(name, weights=None, **settings)


def _side(name: str) -> int:
    """Return the side of images that the first weights were tested with; 224 where there are only later ones."""
    weights = import_module("torchvision.models").get_model_weights(name)
    return _crop(weights["IMAGENET1K_V1"]) if "IMAGENET1K_V1" in weights.__members__ else 224


def _crop(weights: Any) -> int:
    return int(weights.transforms.keywords["crop_size"])


def _classifier(name: str) -> Made:
    return _of_torchvision(name), (_image(_side(name)),)


def _segmenter(name: str) -> Made:
    more = {} if name.startswith("lraspp") else {"aux_loss": True}  # as published
    return _of_torchvision(name, weights_backbone=None, **more), (_image(520),)


def _detector(name: str) -> Made:
    """Return a detector that keeps some boxes even of random scores, so that what follows the boxes runs."""
    few: dict[str, Any] = {"score_thresh": 0.0, "detections_per_img": BOXES}
    if "rcnn" in name:
        few = {f"box_{key}": value for key, value in few.items()}
    return _of_torchvision(name, weights_backbone=None, **few), ([_image(320)[0]],)


def _film_classifier(name: str) -> Made:
    side = _FILM_SIDES.get(name, 112)
    return _of_torchvision(name), (import_module("torch").randn(1, 3, 16, side, side),)


def _flow(name: str) -> Made:
    return _of_torchvision(name), (_image(512), _image(512))


def _quantised(name: str) -> Made:
    side = 299 if "inception" in name else 224
    return _of_torchvision(name, quantize=True), (_image(side),)


_TORCHVISION: dict[str, Callable[[str], Made]] = {
    "classification": _classifier,
    "segmentation": _segmenter,
    "detection": _detector,
    "video": _film_classifier,
    "optical_flow": _flow,
    "quantization": _quantised,
}


# timm: of each of its files a small network, and small ones of further kinds.

_TIMM = """
    bat_resnext26ts beit_base_patch16_224 beitv2_base_patch16_224 botnet26t_256 caformer_s18 cait_s24_224
    coat_tiny coatnet_pico_rw_224 convformer_s18 convit_tiny convmixer_768_32 convnext_atto convnextv2_atto
    cpubone_nano crossvit_tiny_240 cs3darknet_s csatv2 cspnext_tiny cspresnet50 darknet17 davit_tiny
    deepseek_vit_412m deit_tiny_patch16_224 densenet121 dla34 dm_nfnet_f0 dpn48b eca_nfnet_l0 ecaresnet26t
    edgenext_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientnetv2_rw_t efficientvim_m1
    efficientvit_b0 efficientvit_m0 ese_vovnet19b_dw eva02_tiny_patch14_224 fasternet_t0 fastvit_s12 fbnetv3_b
    flexivit_small focalnet_tiny_lrf gcvit_xxtiny gemma4_vit_167m gernet_s ghostnet_050 ghostnetv2_100
    gmixer_12_224 gmlp_s16_224 halo2botnet50ts_256 halonet_h1 hardcorenas_a hgnet_tiny hgnetv2_b0 hiera_tiny_224
    hieradet_small hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4
    lambda_resnet26t lcnet_035 lcnetv2_small legacy_seresnet18 levit_128 lowformer_b0 mambaout_femto
    maxvit_pico_rw_256 maxxvitv2_nano_rw_256 mixer_s16_224 mixnet_s mnasnet_small mobilenet_edgetpu_v2_xs
    mobilenetv1_100 mobilenetv3_small_050 mobilenetv5_300m mobileone_s0 mobilevit_xxs mobilevitv2_050
    mvitv2_tiny naflexvit_base_patch16_gap nasnetalarge nest_tiny nextvit_small nf_regnet_b0 nfnet_f0 pit_xs_224
    pnasnet5large poolformer_s12 poolformerv2_s12 pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 regnety_002
    regnetz_005 regnetz_d8 repghostnet_050 repvgg_a0 repvit_m0_9 res2net50d resmlp_12_224 resnest14d resnet10t
    resnet32ts resnetaa34d resnetblur18 resnetrs50 resnetv2_18 resnext50_32x4d rexnet_100 rexnetr_100
    sam2_hiera_tiny samvit_base_patch16 sebotnet33ts_256 selecsls42 semnasnet_050 sequencer2d_s seresnet18
    seresnext26d_32x4d shvit_s1 skresnet18 starnet_s1 swiftformer_xs swin_s3_tiny_224 swinv2_cr_tiny_224
    swinv2_tiny_window8_256 tf_efficientnetv2_s tf_mobilenetv3_small_075 tiny_vit_5m_224 tinynet_a
    tnt_s_patch16_224 tresnet_m_miil_in21k twins_svt_small vgg11 visformer_tiny vit_relpos_small_patch16_224
    vit_tiny_patch16_224 vit_tiny_patch16_dinov3_qkvb vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224
    vovnet39a xception xception41 xcit_nano_12_p8_224
"""


def _timm() -> list[Model]:
    create = import_module("timm").create_model
    return [Model(name, "timm", partial(_timm_model, create, name)) for name in _TIMM.split()]


def _timm_model(create: Callable[..., Any], name: str) -> Made:
    module = create(name, pretrained=False)
    return module, (import_module("torch").randn(1, *module.pretrained_cfg["input_size"]),)


# transformers: one network of a kind, with two layers and few features.

_TEXT = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2}
_ENCODER = {**_TEXT, "num_attention_heads": 4, "intermediate_size": 40, "max_position_embeddings": 64}
_DECODER = {**_ENCODER, "num_key_value_heads": 2}
_VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
_IMAGE = {"image_size": 32, "patch_size": 8}
_CLIP_TEXT = {**_ENCODER, "projection_dim": 16, "bos_token_id": 0, "eos_token_id": 2}
_T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
_WHISPER = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_source_positions": 30,
    "max_target_positions": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
_WAV2VEC2 = {
    **_VISION,
    "conv_dim": (16, 16, 16),
    "conv_stride": (4, 4, 4),
    "conv_kernel": (8, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 32,
}
_SEGFORMER = {
    "num_encoder_blocks": 4,
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 16,
}
_ENCODEC = {
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_size": 32,
    "codebook_dim": 16,
    "upsampling_ratios": [4, 2],
}
_SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 2, 1], "num_heads": [2, 2, 4]}


def _text(**more: Any) -> Inputs:
    words = _words()
    return {"input_ids": words, "attention_mask": words.new_ones(words.shape), **more}


def _text_and_answer() -> Inputs:
    return _text(decoder_input_ids=_words(6))


def _picture() -> Inputs:
    return {"pixel_values": _image(32)}


def _picture_and_text() -> Inputs:
    return _text(pixel_values=_image(32))


def _film(frames: int) -> Inputs:
    return {"pixel_values": import_module("torch").randn(1, frames, 3, 32, 32)}


def _sound(length: int) -> Inputs:
    return {"input_values": import_module("torch").randn(1, length)}


def _music() -> Inputs:
    return {"input_values": import_module("torch").randn(1, 1, 800)}


def _spectrum() -> Inputs:
    features = import_module("torch").randn(1, 80, 60)
    return {"input_features": features, "decoder_input_ids": _words(6)}


_Inputs = Callable[[], Inputs]
_TRANSFORMERS: dict[str, tuple[str, Mapping[str, Any], _Inputs]] = {
    "Bert": ("Model", _ENCODER, _text),
    "Roberta": ("Model", {**_ENCODER, "pad_token_id": 1}, _text),
    "Deberta": ("Model", {**_ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, _text),
    "DebertaV2": ("Model", {**_ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, _text),
    "GPT2": ("LMHeadModel", {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4}, _text),
    "Llama": ("ForCausalLM", _DECODER, _text),
    "Qwen3": ("ForCausalLM", {**_DECODER, "head_dim": 8}, _text),
    "Mistral": ("ForCausalLM", {**_DECODER, "sliding_window": 8}, _text),
    "Mixtral": ("ForCausalLM", {**_DECODER, "num_local_experts": 4}, _text),
    "Gemma": ("ForCausalLM", {**_DECODER, "head_dim": 8}, _text),
    "Phi": ("ForCausalLM", _ENCODER, _text),
    "T5": ("ForConditionalGeneration", _T5, _text_and_answer),
    "Mamba": ("ForCausalLM", {**_TEXT, "state_size": 8}, lambda: {"input_ids": _words()}),
    "ViT": ("Model", {**_VISION, **_IMAGE}, _picture),
    "Swin": ("Model", {**_SWIN, "window_size": 2}, _picture),
    "Whisper": ("ForConditionalGeneration", _WHISPER, _spectrum),
    "Wav2Vec2": ("ForCTC", _WAV2VEC2, lambda: _sound(1024)),
    "Segformer": ("ForSemanticSegmentation", _SEGFORMER, _picture),
    "CLIP": (
        "Model",
        {"text_config": _CLIP_TEXT, "vision_config": {**_VISION, **_IMAGE}, "projection_dim": 16},
        _picture_and_text,
    ),
    "FNet": (
        "Model",
        {**_TEXT, "intermediate_size": 40, "max_position_embeddings": 64},
        lambda: {"input_ids": _words()},
    ),
    "Encodec": ("Model", _ENCODEC, _music),
    "Timesformer": ("Model", {**_VISION, "image_size": 32, "patch_size": 16, "num_frames": 2}, lambda: _film(2)),
    "VideoMAE": ("Model", {**_VISION, **_IMAGE, "num_frames": 4, "tubelet_size": 2}, lambda: _film(4)),
}


def _transformers() -> list[Model]:
    return [Model(name, "transformers", _transformer(name)) for name in _TRANSFORMERS]


def _transformer(name: str) -> Callable[[], Made]:
    head, settings, inputs = _TRANSFORMERS[name]
    library = import_module("transformers")
    kind, network = getattr(library, f"{name}Config"), getattr(library, f"{name}{head}")
    return lambda: (network(kind(**settings)), inputs())


LISTS: dict[str, Callable[[], list[Model]]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "transformers": _transformers,
}
