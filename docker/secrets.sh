#!/bin/sh
# Make the passwords of docker-compose.yml in ./secrets, once. What is there is never overwritten: to an installation of
# before they were needed, only the files that nothing else depends on are added. File secrets are bind mounts that keep
# their owner and mode, so each file belongs to the user inside its container: that takes root.
set -eu
cd "$(dirname "$0")/.."
[ -e secrets/secret_key ] && [ -e secrets/metrics_token ] && [ -e secrets/flower_auth ] && exit 0
[ "$(id -u)" = 0 ] || { echo "run this as root: the files must belong to the users inside the containers" >&2; exit 2; }

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
write() { # write FILE UID TEXT, into $folder
    printf '%s' "$3" >"$folder/$1.part"
    chown "$2:$2" "$folder/$1.part"
    chmod 0400 "$folder/$1.part"
    mv "$folder/$1.part" "$folder/$1"
}
alone() { # alone FILE TEXT: one that is missing, and that no other file and no volume repeats
    [ ! -e "$folder/$1" ] || return 0
    write "$1" $stoker "$2"
    made="$made $1"
}

umask 077
stoker=10001 service=999 # the users inside our images, and inside those of Redis and PostgreSQL
folder=secrets made=
if [ ! -e secrets ]; then
    folder=secrets.part # renamed when it is complete
    rm -rf $folder
    mkdir $folder
    chmod 0711 $folder
    database=$(password) broker=$(password)
    write database_url $stoker "postgresql+psycopg://stoker:$database@postgres/stoker"
    write broker_url $stoker "redis://stoker:$broker@redis:6379/0"
    write postgres_password $service "$database"
    write redis_password $service "$broker"
    # Celery needs scripts (EVALSHA); nobody needs the dangerous and the administrative commands
    write redis_acl $service "user default off
user stoker on >$broker ~* &* +@all -@dangerous -@admin +info -script +script|load +script|exists
"
fi
alone secret_key "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" # under which the secrets of jobs are kept
alone metrics_token "$(password)"                                       # with which Prometheus reads /metrics
alone flower_auth "stoker:$(password)"
if [ $folder = secrets.part ]; then
    mv $folder secrets
    echo "made ./secrets; Flower's user is stoker, its password is in secrets/flower_auth"
elif [ -n "$made" ]; then
    echo "made in ./secrets:$made; what was there is as it was"
    case $made in
    *secret_key*) echo "if this installation had a secret_key before, put it back: stored secrets of jobs open with it only" ;;
    esac
fi
