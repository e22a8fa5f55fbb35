#!/bin/sh
# Write everything that the installation keeps into one file: docker/backup.sh FILE. Jobs may run meanwhile.
set -eu
cd "$(dirname "$0")/.."
[ $# = 1 ] || { echo "usage: docker/backup.sh FILE" >&2; exit 2; }
[ -e "$1" ] && { echo "backup: $1 exists; name a new file" >&2; exit 2; }
umask 077
# One snapshot of the database, where checkpoints and data sets lie, too. The password stays inside the container.
docker compose exec -T postgres sh -c 'PGPASSWORD=$(cat /run/secrets/postgres_password) exec \
    pg_dump --host 127.0.0.1 --username stoker --format custom stoker' >"$1.part" || {
    rm -f "$1.part"
    echo "backup: pg_dump failed, nothing was written" >&2
    exit 1
}
mv "$1.part" "$1"
echo "wrote $1; keep ./secrets with it"
