#!/bin/sh
# Make what TLS needs in ./secrets: once an authority of this installation, and with it a certificate each for
# PostgreSQL, Redis and the gateway. Give the names and addresses by which other hosts reach this one:
#   docker/certificates.sh stoker.example.org 192.0.2.10
# Run again, it keeps the authority and renews the certificates, which last 825 days. Only for that is ca_key needed: it
# may rest elsewhere. As root, for the files belong to the users inside the containers.
set -eu
cd "$(dirname "$0")/.."
program=certificates
. docker/checks.sh

[ $# -gt 0 ] || { echo "usage: docker/certificates.sh NAME-OR-ADDRESS…" >&2; exit 2; }
[ "$(id -u)" = 0 ] || refuse "the files must belong to the users inside the containers" "run this as root"
command -v openssl >/dev/null || refuse "there is no openssl" "install it"
names=
for name in "$@"; do
    case $name in
    "" | *[!0-9A-Za-z.:-]*) refuse "'$name' is no name and no address of a host" "write it without protocol and port" ;;
    *:*) names="$names,IP:$name" ;;
    *[!0-9.]*) names="$names,DNS:$name" ;;
    *) names="$names,IP:$name" ;;
    esac
done

umask 077
sh docker/secrets.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { "$@" 2>"$work/said" || { cat "$work/said" >&2; refuse "openssl failed" "its words are above"; }; }

place() { # place FILE UID MODE, from $work to ./secrets
    chown "$2:$2" "$work/$1"
    chmod "$3" "$work/$1"
    mv "$work/$1" "secrets/$1"
}

if [ ! -e secrets/ca_crt ]; then
    say openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -subj "/CN=Stoker on $1" -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout "$work/ca_key" -out "$work/ca_crt"
    place ca_key 0 0400
    place ca_crt 0 0444
fi
[ -e secrets/ca_key ] || refuse "secrets/ca_key is not here" "bring it back from where it rests, and run this again"

issue() { # issue SERVICE UID: its certificate and its key
    say openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=Stoker's $1" \
        -keyout "$work/${1}_key" -out "$work/request"
    printf 'subjectAltName=DNS:%s%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$1" "$names" >"$work/extensions"
    say openssl x509 -req -in "$work/request" -CA secrets/ca_crt -CAkey secrets/ca_key -days 825 \
        -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/extensions" -out "$work/${1}_crt"
    place "${1}_key" "$2" 0400
    place "${1}_crt" "$2" 0444
}

issue postgres 999
issue redis 999
issue gateway 99
cat secrets/gateway_crt secrets/gateway_key >"$work/gateway_pem" # as HAProxy wants it
rm secrets/gateway_crt secrets/gateway_key
place gateway_pem 99 0400
echo "made certificates in ./secrets for $*; clients need secrets/ca_crt, which is no secret"
echo "services that run take them after: docker compose up --detach --force-recreate postgres redis gateway"
