#!/bin/sh
# Bring up workers on another host than the one of docker-compose.yml, as root: docker/worker.sh --profile cpu, or
# --profile gpu, or both. Its ./secrets come from docker/worker-secrets.sh there.
set -eu
cd "$(dirname "$0")/.."
program=worker
. docker/checks.sh

case " $* " in
*" --profile"*) ;;
*) echo "usage: docker/worker.sh --profile cpu|gpu" >&2; exit 2 ;;
esac
need_engine
need_toolkit "$@"
need_secrets "take it from the file that docker/worker-secrets.sh wrote" broker_url database_url secret_key
[ -s secrets/ca_crt ] || refuse "secrets/ca_crt is missing or empty" "take it from the file that docker/worker-secrets.sh wrote"

export COMPOSE_FILE="${COMPOSE_FILE:-docker/compose.worker.yml}"
docker compose "$@" up --build --detach --wait --wait-timeout "${WAIT_SECONDS:-300}" || {
    printf 'worker: it did not come up; see: docker compose --file docker/compose.worker.yml --profile "*" logs\n' >&2
    exit 1
}
echo "up; \`stoker workers\` shows it"
