"""Small models of transformers with random weights, and what they compute with one attention."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import: nothing here is looked for elsewhere

import torch
import transformers
from transformers.masking_utils import sdpa_mask

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,  # at its usual 0.02 all scores are about 0, whatever a mask shows
    "pad_token_id": 0,
}
ENCODER = {k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "head_dim")} | {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
GPT2_SIZES = {
    "vocab_size": 61,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
} | dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
T5_SIZES = {
    "vocab_size": 61,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 1,
    "num_heads": 4,
    "relative_attention_num_buckets": 6,
    "relative_attention_max_distance": 9,
    "initializer_factor": 3.0,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}

# With what judges them: sdpa knows neither softcap nor sinks.
MODELS = {
    "llama": ("LlamaForCausalLM", SIZES, "sdpa"),
    "mistral": ("MistralForCausalLM", SIZES | {"sliding_window": 4}, "sdpa"),
    "gemma2": (
        "Gemma2ForCausalLM",
        SIZES | {"sliding_window": 4, "attn_logit_softcapping": 2.0, "tie_word_embeddings": False},
        "plain",
    ),
    "gpt-oss": ("GptOssForCausalLM", SIZES | EXPERTS | {"sliding_window": 4}, "plain"),
    "gpt2": ("GPT2LMHeadModel", GPT2_SIZES, "sdpa"),
    "bert": ("BertModel", ENCODER, "sdpa"),
    "t5": ("T5ForConditionalGeneration", T5_SIZES, "sdpa"),
}
DECODERS = "llama", "mistral", "gemma2", "gpt-oss", "gpt2"


def plain(module, query, key, value, attention_mask, scaling=None, softcap=None, s_aux=None, **_):
    """Softmax by hand, of what transformers' own masks show. eager is this in float32, but for rows
    that see nothing: here they are 0, as in sdpa."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scores = query @ key.mT * scaling
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    scores = scores.masked_fill(~attention_mask, -torch.inf)
    if s_aux is not None:
        sinks = s_aux[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], -1)
    nothing = scores.isneginf().all(-1, keepdim=True)
    weights = scores.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0)
    return (weights[..., : key.shape[2]] @ value).transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register("plain", plain)
transformers.AttentionMaskInterface.register(
    "plain", lambda **options: sdpa_mask(**options | {"allow_is_causal_skip": False})
)


def model(name, **sizes):
    """In float64, where what rounding does is far from what a wrong mask does."""
    kind, usual, reference = MODELS[name]
    kind = getattr(transformers, kind)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = kind(kind.config_class(**usual | sizes))
    made.reference = reference
    if name == "gpt-oss":
        made.set_experts_implementation("eager")  # its other products know no float64
    return made.double().eval()


def tokens(rows=3, length=9):
    return torch.randint(1, 61, (rows, length), generator=torch.Generator().manual_seed(5))


def padded(side, rows=3, length=9):
    """The attention mask of sequences of several lengths: one of them whole, one of a token."""
    used = torch.tensor([length, 1, length - 3])[:rows, None]
    at = torch.arange(length)
    return (at < used if side == "right" else at >= length - used).long()


def by(model, implementation, call):
    """What call gives when the model's attention is this one."""
    model.set_attn_implementation(implementation)
    return call()


def one_thread():
    """A fixture: more of torch's threads would only wait for each other, in such small products."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
