"""The tiny model as a GGUF file, laid out as llama.cpp's converter does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_lm import CHATML, save_tiny_model

_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_tiny_gguf(path: Path, folder: Path) -> Path:
    """Write the model of `save_tiny_model(folder)`, which is made, to a file of float32."""
    from gguf import GGUFWriter
    from transformers import AutoModelForCausalLM

    save_tiny_model(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, folder)
    for name, weight in model.state_dict().items():
        writer.add_tensor(_name(name), _layout(name, weight, config).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_TENSORS[rest.removesuffix('.weight')]}.weight"


def _layout(name: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    """GGUF keeps the two halves of a rotated head interleaved."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for projection, count in heads.items():
        if projection in name:
            split = weight.reshape(count, 2, weight.shape[0] // count // 2, weight.shape[1])
            return split.swapaxes(1, 2).reshape(weight.shape)
    return weight


def _add_tokenizer(writer: Any, folder: Path) -> None:
    from gguf import TokenType

    saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = dict(saved["model"]["vocab"])
    added = {token["content"]: token for token in saved["added_tokens"]}
    vocabulary |= {text: token["id"] for text, token in added.items()}
    tokens = sorted(vocabulary, key=lambda text: vocabulary[text])
    kinds = [
        TokenType.NORMAL
        if token not in added
        else TokenType.CONTROL
        if added[token]["special"]
        else TokenType.USER_DEFINED
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in saved["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHATML)
