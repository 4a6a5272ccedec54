#!/bin/sh
# Brings the database up to date, then serves.
alembic upgrade head
uvicorn app.main:app --host 0.0.0.0 --port "$PORT" --workers 2
