"""All tables, by noun. Import them from here: a table that was not imported is unknown to Alembic."""

from stoker.jobs.base import Base
from stoker.jobs.tables_content import Blob, BlobChunk, Chunk, CodeSnapshot, Dataset
from stoker.jobs.tables_estimates import Estimate
from stoker.jobs.tables_fleet import Device, Incarnation, Worker, WorkerData
from stoker.jobs.tables_notices import Notification
from stoker.jobs.tables_people import IdempotencyKey, Pool, Secret, Team, TeamQuota, Token, Usage, User
from stoker.jobs.tables_records import Checkpoint, LogChunk, MetricSegment, Output, Predictions, Result, Sprite
from stoker.jobs.tables_work import Allocation, Attempt, Dependency, Event, Job, JobDataset, Lease, Reservation

__all__ = [
    "Allocation",
    "Attempt",
    "Base",
    "Blob",
    "BlobChunk",
    "Checkpoint",
    "Chunk",
    "CodeSnapshot",
    "Dataset",
    "Dependency",
    "Device",
    "Estimate",
    "Event",
    "IdempotencyKey",
    "Incarnation",
    "Job",
    "JobDataset",
    "Lease",
    "LogChunk",
    "MetricSegment",
    "Notification",
    "Output",
    "Pool",
    "Predictions",
    "Reservation",
    "Result",
    "Secret",
    "Sprite",
    "Team",
    "TeamQuota",
    "Token",
    "Usage",
    "User",
    "Worker",
    "WorkerData",
]
