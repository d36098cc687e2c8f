"""What makes the lane look like a stock Celery worker: its tracer, events, remote control."""
