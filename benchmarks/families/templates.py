"""Chat templates that render our messages as those of published checkpoints do.

Each is written here and renders the same text as the published one for what this project sends:
one user turn of at most one image and one text, answered or not. Sources are the `chat_template`
of the named repositories on the model hub.
"""

_TURNS = "{%- for message in messages -%}"
_END = "{%- endfor -%}"


def _of_part(kind: str, rendered: str) -> str:
    return (
        f"{{%- for part in message['content'] | selectattr('type', 'equalto', '{kind}') -%}}"
        f"{{{{ {rendered} }}}}{_END}"
    )


def _mistral(end: str) -> str:
    return (
        f"{_TURNS}{{%- if message['role'] == 'user' -%}}{{{{ '[INST] ' }}}}"
        + _of_part("image", r"'<image>\n'")
        + _of_part("text", "part['text'] + ' [/INST]'")
        + "{%- else -%}"
        + _of_part("text", f"' ' + part['text'] + '{end} '")
        + "{%- endif -%}"
        + _END
    )


def _header(opening: str, closing: str, *, after_role: str, image: str, answer: str) -> str:
    """Turns with a header of their own; `after_role` follows the role, `answer` an answer's text
    in place of `after_role`.
    """
    return (
        f"{_TURNS}{{{{ '{opening}' + message['role'] }}}}"
        + "{%- if message['role'] == 'assistant' -%}"
        + _of_part("text", f"'{answer}' + part['text'] + '{closing}'")
        + "{%- else -%}"
        + f"{{{{ '{after_role}' }}}}"
        + _of_part("image", f"'{image}'")
        + _of_part("text", f"part['text'] + '{closing}'")
        + "{%- endif -%}"
        + _END
    )


def _generation_prompt(text: str) -> str:
    return f"{{%- if add_generation_prompt -%}}{{{{ '{text}' }}}}{{%- endif -%}}"


# llava-hf/llava-v1.6-mistral-7b-hf: its newer revision, and the older one, which writes the end of
# a turn as four plain characters.
MISTRAL = _mistral("</s>")
OLD_MISTRAL = _mistral(r"<\\s>")

# llava-hf/llava-v1.6-vicuna-7b-hf
VICUNA = (
    f"{_TURNS}{{{{ message['role'].upper() + ': ' }}}}"
    + _of_part("image", r"'<image>\n'")
    + _of_part("text", "part['text'] + ' '")
    + _END
    + _generation_prompt("ASSISTANT:")
)

# llava-hf/llama3-llava-next-8b-hf
LLAMA_3 = _header(
    "<|start_header_id|>",
    "<|eot_id|>",
    after_role=r"<|end_header_id|>\n\n",
    image=r"<image>\n",
    answer=r"<|end_header_id|>\n\n\n",
) + _generation_prompt(r"<|start_header_id|>assistant<|end_header_id|>\n\n")

# llava-hf/llava-v1.6-34b-hf
CHATML = _header(
    "<|im_start|>", r"<|im_end|>\n", after_role=r"\n", image=r"<image>\n", answer=r"\n"
) + _generation_prompt(r"<|im_start|>assistant\n")

# llava-hf/llava-next-72b-hf
QWEN_72B = _header(
    "<|im_start|>", r"<|im_end|>\n", after_role=r"\n", image=r"<image>\n", answer=r"\n\n"
) + _generation_prompt(r"<|im_start|>assistant\n")

# llava-hf/llava-onevision-qwen2-7b-ov-hf
ONEVISION = _header(
    "<|im_start|>", "<|im_end|>", after_role=" ", image=r"<image>\n", answer=r" \n"
) + _generation_prompt(r"<|im_start|>assistant\n")

_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"

# Qwen/Qwen2.5-VL-7B-Instruct
QWEN_2_5 = (
    r"{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    + _header("<|im_start|>", r"<|im_end|>\n", after_role=r"\n", image=_QWEN_IMAGE, answer=r"\n")
    + _generation_prompt(r"<|im_start|>assistant\n")
)

# Qwen/Qwen3-VL-8B-Instruct: without the constant system turn
QWEN_3 = _header(
    "<|im_start|>", r"<|im_end|>\n", after_role=r"\n", image=_QWEN_IMAGE, answer=r"\n"
) + _generation_prompt(r"<|im_start|>assistant\n")

# OpenGVLab/InternVL3-8B-hf
INTERNVL_3 = _header(
    "<|im_start|>", r"<|im_end|>\n", after_role=r"\n", image=r"<IMG_CONTEXT>\n", answer=r"\n"
) + _generation_prompt(r"<|im_start|>assistant\n")

# google/gemma-3-4b-it: it writes the beginning itself, strips texts and names the model "model"
GEMMA_3 = (
    "{{ bos_token }}"
    + _TURNS
    + r"{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' }}"
    + _of_part("image", "'<start_of_image>'")
    + _of_part("text", "part['text'] | trim")
    + r"{{ '<end_of_turn>\n' }}"
    + _END
    + _generation_prompt(r"<start_of_turn>model\n")
)

# mistral-community/pixtral-12b, and the turns of mistralai/Mistral-Small-3.1-24B-Instruct-2503
# without its system prompt: both write the beginning themselves
PIXTRAL = (
    "{{ bos_token }}"
    + _TURNS
    + "{%- if message['role'] == 'user' -%}{{ '[INST]' }}"
    + _of_part("image", "'[IMG]'")
    + _of_part("text", "part['text']")
    + "{{ '[/INST]' }}{%- else -%}"
    + _of_part("text", "part['text'] + eos_token")
    + "{%- endif -%}"
    + _END
)

# HuggingFaceTB/SmolVLM2-500M-Video-Instruct
SMOLVLM = (
    "{{ '<|im_start|>' }}"
    + _TURNS
    + "{{ message['role'] | capitalize }}"
    + "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    + _of_part("image", "'<image>'")
    + _of_part("text", "part['text']")
    + r"{{ '<end_of_utterance>\n' }}"
    + _END
    + _generation_prompt("Assistant:")
)
