#!/bin/sh
# Make the passwords of docker-compose.yml, once, in ./secrets. File secrets are bind mounts that keep their owner and
# mode, so each file belongs to the user inside its container: that takes root.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "run this as root: the files must belong to the users inside the containers" >&2; exit 1; }
[ -e secrets ] && { echo "./secrets exists already; remove it only together with the volumes" >&2; exit 1; }

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
write() { # write FILE UID TEXT
    printf '%s' "$3" >"secrets/$1"
    chown "$2:$2" "secrets/$1"
    chmod 0400 "secrets/$1"
}

umask 077
mkdir secrets
chmod 0711 secrets
database=$(password) broker=$(password) flower=$(password)
stoker=10001 service=999 # the users inside our images, and inside those of Redis and PostgreSQL
write database_url $stoker "postgresql+psycopg://stoker:$database@postgres/stoker"
write broker_url $stoker "redis://stoker:$broker@redis:6379/0"
write secret_key $stoker "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" # under which the secrets of jobs are kept
write metrics_token $stoker "$(password)" # with which Prometheus reads /metrics
write flower_auth $stoker "stoker:$flower"
write postgres_password $service "$database"
write redis_password $service "$broker"
# Celery needs scripts (EVALSHA); nobody needs the dangerous and the administrative commands
write redis_acl $service "user default off
user stoker on >$broker ~* &* +@all -@dangerous -@admin +info -script +script|load +script|exists
"
echo "made ./secrets; Flower's user is stoker, its password is in secrets/flower_auth"
