"""A chat template in the language of tokenizers: what plain transformers needs to lay out a conversation as we do."""

from __future__ import annotations

import json
from collections.abc import Mapping


def jinja(start: str, opens: Mapping[str, str], end: str, answer: str) -> str:
    """`start` once; around each message what opens a turn of its role, and `end`; `answer` where one is asked for."""
    start, end, answer = (json.dumps(text, ensure_ascii=False) for text in (start, end, answer))
    return (
        f"{{%- set opens = {json.dumps(opens, ensure_ascii=False)} -%}}\n"
        f"{{{{- {start} -}}}}\n"
        "{%- for message in messages -%}\n"
        '{%- if message["role"] not in opens -%}\n'
        '{{- raise_exception("The role of a message is system, user or assistant, not " ~ message["role"] ~ ".") -}}\n'
        "{%- endif -%}\n"
        f'{{{{- opens[message["role"]] ~ message["content"] ~ {end} -}}}}\n'
        "{%- endfor -%}\n"
        f"{{%- if add_generation_prompt -%}}{{{{- {answer} -}}}}{{%- endif -%}}\n"
    )
