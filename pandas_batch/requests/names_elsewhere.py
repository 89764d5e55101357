"""Names that people bring from other libraries, and the line that does here what they mean."""

from __future__ import annotations

import re

from .keys import HOW_TO_GIVE_A_KEY

_SCHEMA = 'output_schema={"sentiment": str, "score": float}   # a pydantic model, or a JSON schema'
_LABELS = 'output_schema=["positive", "negative", "mixed"]'
_TEMPLATE = 'prompt="Classify: {title}"   # a template over columns'
_AT_ONCE = "leave it out: all rows go out in as few batches as they fit in, and the server works on them at once"
_BATCHES = "leave it out: a batch takes up to 100,000 rows; more rows are cut into several by themselves"
_ROWS = "df.head(100).claude_batch.submit(...)   # some of the rows"
_RETRIES = (
    "retries=2   # asks by itself for rows that were overloaded or lost; calls are repeated as needed, "
    "whatever client=Anthropic(max_retries=...) says"
)
_BUDGET = "max_cost_usd=5.00   # refuses what could cost more"
_COLUMN_NAMES = 'prefix="summary_"   # the answers are the column summary_output'
_EFFORT = 'output_config={"effort": "low"}'
_CLIENT = 'client=anthropic.Anthropic(base_url="https://...")'
_HEADERS = 'client=anthropic.Anthropic(default_headers={"...": "..."})'
_SAMPLES = "samples=3   # answers per row"
_SYSTEM = 'system="Answer with one word."'
_THINKING = 'thinking={"type": "enabled", "budget_tokens": 2048}, max_tokens=4096'
_PROGRESS = 'progress="text"   # or "widget", "off"'
_CACHE = "cache_system=True   # the prompt cache; answers are kept in the store anyway, the same line is not paid twice"
_PREVIEW = 'df.claude_batch.preview("column")   # the exact requests; .estimate("column") what they cost'
_STOP = 'stop_sequences=["END"]'
_WAIT = "df.claude_batch.start(...) returns at once, submit(...) waits"
_FEW_SHOT = 'few_shot=[("question", "answer"), ...]'
_ERRORS = 'on_unsendable="skip"   # rows that cannot be sent; failed rows never raise, see the columns status and error'
_BETAS = 'betas=["output-300k-2026-03-24"]'
_IMAGES = 'images_col="photo"   # a column of paths, URLs or bytes'
_DOCUMENTS = 'documents_col="paper"   # a column of paths, URLs or bytes'

_LINES = {
    "annotations": _LABELS,
    "asynchronous": _WAIT,
    "backoff": _RETRIES,
    "base_url": _CLIENT,
    "batch_size": _BATCHES,
    "batch_timeout": "timeout=3600   # seconds to wait; the run goes on after it",
    "beta": _BETAS,
    "block": _WAIT,
    "blocking": _WAIT,
    "budget": _BUDGET,
    "budget_tokens": _THINKING,
    "budget_usd": _BUDGET,
    "cache": _CACHE,
    "cache_prompt": _CACHE,
    "caching": _CACHE,
    "cache_dir": 'store="~/.pandas_batch"   # where runs and answers are kept',
    "categories": _LABELS,
    "choices": _LABELS,
    "chunk_size": _BATCHES,
    "chunksize": _BATCHES,
    "classes": _LABELS,
    "col": 'prompt_col="review"',
    "column": 'prompt_col="review"',
    "concurrency": _AT_ONCE,
    "cost_limit": _BUDGET,
    "debug": _PREVIEW,
    "deadline": "timeout=3600   # seconds to wait; the run goes on after it",
    "default_headers": _HEADERS,
    "demonstrations": _FEW_SHOT,
    "description": 'name="nightly"   # a run\'s name',
    "developer": _SYSTEM,
    "documents": _DOCUMENTS,
    "dry_run": _PREVIEW,
    "dryrun": _PREVIEW,
    "effort": _EFFORT,
    "engine": 'model="claude-haiku-4-5-20251001"',
    "errors": _ERRORS,
    "examples": _FEW_SHOT,
    "fewshot": _FEW_SHOT,
    "files": _DOCUMENTS,
    "format": _SCHEMA,
    "frequency_penalty": "leave it out: the Messages API has no penalties",
    "function_call": 'tool_choice={"type": "tool", "name": "..."}, tools=[...]',
    "functions": 'tools=[{"name": "...", "input_schema": {...}}]',
    "headers": _HEADERS,
    "host": _CLIENT,
    "http_client": "client=anthropic.Anthropic(http_client=...)",
    "ignore_errors": _ERRORS,
    "image": _IMAGES,
    "image_col": _IMAGES,
    "images": _IMAGES,
    "input": 'prompt_col="review"',
    "inputs": 'prompt_col="review"',
    "input_col": 'prompt_col="review"',
    "input_column": 'prompt_col="review"',
    "instruction": _SYSTEM,
    "instructions": _SYSTEM,
    "interval": "poll_interval=10   # seconds",
    "json_mode": _SCHEMA,
    "json_schema": _SCHEMA,
    "labels": _LABELS,
    "limit": _ROWS,
    "logit_bias": "leave it out: the Messages API has none",
    "logprobs": "leave it out: the Messages API tells none",
    "max_batch_size": _BATCHES,
    "max_budget": _BUDGET,
    "max_completion_tokens": "max_tokens=1024",
    "max_concurrency": _AT_ONCE,
    "max_concurrent": _AT_ONCE,
    "max_concurrent_requests": _AT_ONCE,
    "max_cost": _BUDGET,
    "max_new_tokens": "max_tokens=1024",
    "max_output_tokens": "max_tokens=1024",
    "max_parallel": _AT_ONCE,
    "max_retries": _RETRIES,
    "max_rows": _ROWS,
    "max_tokens_to_sample": "max_tokens=1024",
    "max_usd": _BUDGET,
    "max_workers": _AT_ONCE,
    "max_tries": _RETRIES,
    "messages_col": 'prompt_col="conversation"   # a column of whole conversations',
    "mode": _WAIT,
    "model_id": 'model="claude-haiku-4-5-20251001"',
    "model_name": 'model="claude-haiku-4-5-20251001"',
    "n": _SAMPLES,
    "n_jobs": _AT_ONCE,
    "n_rows": _ROWS,
    "n_samples": _SAMPLES,
    "nrows": _ROWS,
    "num_completions": _SAMPLES,
    "num_retries": _RETRIES,
    "num_rows": _ROWS,
    "num_samples": _SAMPLES,
    "num_threads": _AT_ONCE,
    "num_workers": _AT_ONCE,
    "on_error": _ERRORS,
    "organization": _CLIENT,
    "out_col": _COLUMN_NAMES,
    "output": _COLUMN_NAMES,
    "output_col": _COLUMN_NAMES,
    "output_column": _COLUMN_NAMES,
    "output_format": _SCHEMA,
    "output_model": _SCHEMA,
    "output_type": _SCHEMA,
    "parallel": _AT_ONCE,
    "parallelism": _AT_ONCE,
    "path": 'store="~/.pandas_batch"   # where runs and answers are kept',
    "pdf": _DOCUMENTS,
    "pdfs": _DOCUMENTS,
    "poll_every": "poll_interval=10   # seconds",
    "polling_interval": "poll_interval=10   # seconds",
    "pool_size": _AT_ONCE,
    "presence_penalty": "leave it out: the Messages API has no penalties",
    "progress_bar": _PROGRESS,
    "progressbar": _PROGRESS,
    "prompt_column": 'prompt_col="review"',
    "prompt_template": _TEMPLATE,
    "provider": _CLIENT,
    "proxies": "client=anthropic.Anthropic(http_client=...)",
    "proxy": "client=anthropic.Anthropic(http_client=...)",
    "pydantic_model": _SCHEMA,
    "quiet": 'progress="off"',
    "raise_on_error": _ERRORS,
    "random_state": "leave it out: the Messages API has no seed; the same line gives the stored answers again",
    "rate_limit": _AT_ONCE,
    "reasoning": _THINKING,
    "reasoning_effort": _EFFORT,
    "request_timeout": "timeout=3600   # seconds to wait; the run goes on after it",
    "requests_per_minute": _AT_ONCE,
    "response_format": _SCHEMA,
    "response_model": _SCHEMA,
    "response_schema": _SCHEMA,
    "resume": "leave it out: the same line again takes up the same run",
    "retry": _RETRIES,
    "rpm": _AT_ONCE,
    "run_name": 'name="nightly"',
    "sample": _ROWS,
    "schema": _SCHEMA,
    "seed": "leave it out: the Messages API has no seed; the same line gives the stored answers again",
    "shots": _FEW_SHOT,
    "show_progress": _PROGRESS,
    "silent": 'progress="off"',
    "skip_errors": _ERRORS,
    "stop": _STOP,
    "stop_sequence": _STOP,
    "stop_words": _STOP,
    "stopwords": _STOP,
    "structured_output": _SCHEMA,
    "suffix": _COLUMN_NAMES,
    "sys_prompt": _SYSTEM,
    "system_message": _SYSTEM,
    "system_prompt": _SYSTEM,
    "target_col": _COLUMN_NAMES,
    "template": _TEMPLATE,
    "text_col": 'prompt_col="review"',
    "text_column": 'prompt_col="review"',
    "thinking_budget": _THINKING,
    "threads": _AT_ONCE,
    "timeout_s": "timeout=3600   # seconds to wait; the run goes on after it",
    "tool": 'tools=[{"name": "...", "input_schema": {...}}]',
    "tpm": _AT_ONCE,
    "tqdm": _PROGRESS,
    "ttl": "cache_system=True   # keeps the system prompt for an hour",
    "use_cache": _CACHE,
    "user": 'metadata={"user_id": "..."}',
    "user_id": 'metadata={"user_id": "..."}',
    "user_prompt": _TEMPLATE,
    "validation": _SCHEMA,
    "verbose": _PROGRESS,
    "verbosity": _PROGRESS,
    "wait": _WAIT,
    "workers": _AT_ONCE,
}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_PLAIN_NAME = {_plain(name): line for name, line in _LINES.items()} | {"apikey": HOW_TO_GIVE_A_KEY}


def line_for(name: str) -> str | None:
    """
    Return the line that does here what a name of another library means, or None where there is none.

    Examples
    --------
    >>> line_for("maxOutputTokens")
    'max_tokens=1024'
    """
    return _BY_PLAIN_NAME.get(_plain(name))
