#!/bin/sh
# `exec` puts uvicorn in the place of this shell: a platform sends SIGTERM to the first process only, and a shell would
# not pass it on. The workers are not set here: uvicorn and the settings of the app read WEB_CONCURRENCY.
exec uvicorn app.main:app --host 0.0.0.0 --port "$PORT" --timeout-graceful-shutdown 6
