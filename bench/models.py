"""Networks that others wrote: how each is made and what it is called with, without a download.

`bench_models.py` counts them as PyTorch modules. Weights are random, inputs are drawn, and both follow a seed.
Nothing is made, and no library is imported, before it is asked for.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

SEED = 0
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
    with torch.device(device):
        module, inputs = model.make()
    return module.eval(), inputs


def _image(side: int, batch: int = 1) -> Any:
    return import_module("torch").randn(batch, 3, side, side)


def _words(length: int = 16, vocabulary: int = 90) -> Any:
    return import_module("torch").randint(3, vocabulary, (1, length))


# torchvision: every model that it lists.

_SIDES = {"inception_v3": 299, "quantized_inception_v3": 299}
_VIDEO_SIDES = {"mvit_v1_b": 224, "mvit_v2_s": 224, "s3d": 224}


def _torchvision() -> list[Model]:
    library = import_module("torchvision.models")
    return [_torchvision_model(name, library.get_model_builder(name).__module__) for name in library.list_models()]


def _torchvision_model(name: str, place: str) -> Model:
    part = place.split(".")[2]
    kinds = ("segmentation", "detection", "video", "optical_flow", "quantization")
    kind = part if part in kinds else "classification"
    return Model(name, f"torchvision.{kind}", partial(_TORCHVISION[kind], name))


def _of_torchvision(name: str, **settings: Any) -> Any:
    library = import_module("torchvision.models")
    return library.get_model(name, weights=None, **settings)


def _classifier(name: str) -> Made:
    return _of_torchvision(name), (_image(_SIDES.get(name, 224)),)


def _segmenter(name: str) -> Made:
    return _of_torchvision(name, weights_backbone=None), (_image(520),)


def _detector(name: str) -> Made:
    """Return a detector that keeps five boxes even of random scores, so that what follows the boxes runs."""
    few = {"score_thresh": 0.0, "detections_per_img": 5}
    if "rcnn" in name:
        few = {f"box_{key}": value for key, value in few.items()}
    side = 300 if name.startswith("ssd300") else 320
    return _of_torchvision(name, weights_backbone=None, **few), ([_image(side)[0]],)


def _video(name: str) -> Made:
    side = _VIDEO_SIDES.get(name, 112)
    return _of_torchvision(name), (import_module("torch").randn(1, 3, 16, side, side),)


def _flow(name: str) -> Made:
    return _of_torchvision(name), (_image(128), _image(128))


def _quantised(name: str) -> Made:
    return _of_torchvision(name, quantize=True), (_image(_SIDES.get(name, 224)),)


_TORCHVISION = {
    "classification": _classifier,
    "segmentation": _segmenter,
    "detection": _detector,
    "video": _video,
    "optical_flow": _flow,
    "quantization": _quantised,
}


# timm: of each of its files the network with the fewest parameters, then the second.

_TIMM = """
"""


def _timm() -> list[Model]:
    return [Model(name, "timm", partial(_timm_model, name)) for name in _TIMM.split()]


def _timm_model(name: str) -> Made:
    module = import_module("timm").create_model(name, pretrained=False)
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
