#!/bin/sh
# Write what a worker on another host needs into one file: docker/worker-secrets.sh ADDRESS FILE.tar, where ADDRESS is
# how that host reaches this one, as it was given to docker/certificates.sh. The file holds passwords: carry it safely.
set -eu
cd "$(dirname "$0")/.."
program=worker-secrets
. docker/checks.sh

[ $# = 2 ] || { echo "usage: docker/worker-secrets.sh ADDRESS FILE.tar" >&2; exit 2; }
address=$1
[ "$(id -u)" = 0 ] || refuse "the files belong to the users inside the containers" "run this as root"
[ ! -e "$2" ] || refuse "$2 exists" "name a new file"
[ -s secrets/gateway_pem ] || refuse "there are no certificates" "make them: docker/certificates.sh $address"
case $address in # openssl finds that any name matches where it is asked for an address
*:*) host="[$address]" check=-checkip ;;
*[!0-9.]*) host=$address check=-checkhost ;;
*) host=$address check=-checkip ;;
esac
openssl x509 -noout -in secrets/gateway_pem $check "$address" | grep -q 'does match' ||
    refuse "the certificates do not name $address" "make them again with all names: docker/certificates.sh $address …"
port() { # port CONTAINERS-PORT: where the gateway publishes it
    published=$(docker compose port gateway "$1" 2>/dev/null) || refuse "the gateway does not run" "make compose-up"
    printf '%s' "${published##*:}"
}
database_port=$(port 5432) broker_port=$(port 6380)

umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/secrets"
ca=/run/secrets/ca_crt
printf 'postgresql+psycopg://stoker:%s@%s:%s/stoker?sslmode=verify-full&sslrootcert=%s' \
    "$(cat secrets/postgres_password)" "$host" "$database_port" $ca >"$work/secrets/database_url"
printf 'rediss://stoker:%s@%s:%s/0?ssl_cert_reqs=required&ssl_ca_certs=%s' \
    "$(cat secrets/redis_password)" "$host" "$broker_port" $ca >"$work/secrets/broker_url"
cp secrets/secret_key secrets/ca_crt "$work/secrets"
chown 10001:10001 "$work"/secrets/*
chmod 0400 "$work"/secrets/*
chmod 0444 "$work/secrets/ca_crt"
chmod 0711 "$work/secrets"
tar -C "$work" --numeric-owner -cf "$2" secrets
echo "wrote $2; on the other host, as root, in its copy of this tree: tar -xf ${2##*/}, then docker/worker.sh --profile cpu"
