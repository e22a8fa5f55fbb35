#!/bin/sh
# Fill an empty installation from a file of docker/backup.sh, before its first start: docker/restore.sh FILE
set -eu
cd "$(dirname "$0")/.."
[ $# = 1 ] && [ -s "$1" ] || { echo "usage: docker/restore.sh FILE" >&2; exit 2; }
sh docker/secrets.sh
docker compose up --detach --wait --wait-timeout 120 postgres
in_database() { # in_database COMMAND…, with the password, which stays inside the container
    docker compose exec -T postgres sh -c 'PGPASSWORD=$(cat /run/secrets/postgres_password) exec "$@"' sh "$@"
}
tables=$(in_database psql --host 127.0.0.1 --username stoker --no-align --tuples-only stoker \
    --command "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
[ "$tables" = 0 ] || { echo "restore: the database is not empty; nothing was changed" >&2; exit 2; }
in_database pg_restore --host 127.0.0.1 --username stoker --dbname stoker --no-owner --exit-on-error \
    --single-transaction <"$1"
echo "restored; now run: make compose-up (tokens are those of the backup)"
