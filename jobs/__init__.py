"""What a job is, whose turn it is, and where it is kept: no web, no Celery, no torch."""
