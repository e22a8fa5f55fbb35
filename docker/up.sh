#!/bin/sh
# Bring a team's installation up: the secrets that are missing, images, services; then print the addresses and
# the administrator's first token. Arguments go to `docker compose`: docker/up.sh --profile gpu
set -eu
cd "$(dirname "$0")/.."
program=compose-up
. docker/checks.sh

need_engine
need_toolkit "$@"
sh docker/secrets.sh
need_secrets "restore it from your backup; only before the first start may ./secrets be removed and made anew" \
    broker_url database_url flower_auth metrics_token postgres_password redis_acl redis_password secret_key
tls=$(docker compose config --services | grep -x gateway || true)
[ -z "$tls" ] || need_secrets "make it with docker/certificates.sh" gateway_pem postgres_key redis_key

docker compose "$@" up --build --detach --wait --wait-timeout "${WAIT_SECONDS:-300}" || {
    printf 'compose-up: not everything came up; see: docker compose ps --all; docker compose logs SERVICE\n' >&2
    exit 1
}
printf 'API     http://%s\n' "$(docker compose port api 8000)"
printf 'Flower  http://%s  (user stoker; the password stands in secrets/flower_auth)\n' "$(docker compose port flower 5555)"
[ -z "$tls" ] || printf 'TLS     https://%s, Flower https://%s, PostgreSQL %s, Redis %s\n' "$(docker compose port gateway 8443)" \
    "$(docker compose port gateway 8444)" "$(docker compose port gateway 5432)" "$(docker compose port gateway 6380)"
printf 'Token   %s\n' "$(docker compose exec -T api cat /var/lib/stoker/token 2>/dev/null || echo 'see docs/deployment.md')"
