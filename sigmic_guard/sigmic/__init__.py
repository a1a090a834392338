"""The remote side: the Sigmic Task API as a protocol, and the client that speaks it over HTTP."""

from __future__ import annotations

from sigmic_guard.sigmic.api import ApprovalOutcome, EventStream, TaskApi
from sigmic_guard.sigmic.client import SigmicClient
from sigmic_guard.sigmic.control import TransportKind, trace_headers
from sigmic_guard.sigmic.models import (
    TERMINAL_STATUSES,
    CreateRequest,
    PendingApproval,
    TaskInfo,
    TaskOutput,
    TaskPage,
)
from sigmic_guard.sigmic.requests import check_create, check_files, check_message, check_outcome
from sigmic_guard.sigmic.sse import ServerSentEvent, SSEDecoder
from sigmic_guard.sigmic.urls import check_id, is_id

__all__ = [
    "TERMINAL_STATUSES",
    "ApprovalOutcome",
    "CreateRequest",
    "EventStream",
    "PendingApproval",
    "SSEDecoder",
    "ServerSentEvent",
    "SigmicClient",
    "TaskApi",
    "TaskInfo",
    "TaskOutput",
    "TaskPage",
    "TransportKind",
    "check_create",
    "check_files",
    "check_id",
    "check_message",
    "check_outcome",
    "is_id",
    "trace_headers",
]
