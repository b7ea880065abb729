"""The sheet as a page: one file that opens anywhere, offline, and exports what its reader judged.

Text, style and script live in `review_template/`; a content security policy forbids the page to
load anything or to run any other script. Verdicts stay in the browser until they are exported.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict

from rag.evaluation.page import fill_template, json_for_html, template_text
from rag.evaluation.review_sheet import Sheet

_FOLDER = "review_template"


def render_sheet(sheet: Sheet) -> str:
    """The page as text; equal sheets give equal bytes."""
    script = template_text(_FOLDER, "review.js")
    return fill_template(
        template_text(_FOLDER, "review.html"),
        {
            "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            "style": template_text(_FOLDER, "review.css"),
            "script": script,
            "review": sheet.review,
            "data": json_for_html({**asdict(sheet), "sheet": sheet.sha256}),
        },
    )
