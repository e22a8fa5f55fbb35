#!/bin/sh
# Bring a team's installation up: the secrets that are missing, images, services; then print the addresses and
# the administrator's first token. Arguments go to `docker compose`: docker/up.sh --profile gpu
set -eu
cd "$(dirname "$0")/.."

refuse() { # refuse PROBLEM FIX
    printf 'compose-up: %s; %s\n' "$1" "$2" >&2
    exit 2
}

compose_version=$(docker compose version --short 2>/dev/null) ||
    refuse "\`docker compose\` does not answer" "install Docker with its Compose plugin, 2.20 or newer"
case ${compose_version#v} in
[01].* | 2.?.* | 2.1?.*) refuse "Compose $compose_version is too old" "2.20 or newer is needed" ;;
esac
docker info >/dev/null 2>&1 || refuse "the Docker engine does not answer" "start it, and run this as its user"
case " $* " in
*" --profile gpu "* | *" --profile=gpu "*)
    command -v nvidia-container-runtime-hook >/dev/null ||
        refuse "--profile gpu: this host has no NVIDIA Container Toolkit" \
            "install nvidia-container-toolkit 1.17.8 or newer and restart Docker, or leave the profile out"
    ;;
esac

sh docker/secrets.sh
for name in broker_url database_url flower_auth metrics_token postgres_password redis_acl redis_password secret_key; do
    file=secrets/$name
    [ -s "$file" ] || refuse "$file is missing or empty" \
        "restore it from your backup; only before the first start may ./secrets be removed and made anew"
    [ -z "$(find "$file" -perm /o+rwx)" ] || refuse "$file can be read by everybody" "chmod o-rwx $file"
done

docker compose "$@" up --build --detach --wait --wait-timeout "${WAIT_SECONDS:-300}" || {
    printf 'compose-up: not everything came up; see: docker compose ps --all; docker compose logs SERVICE\n' >&2
    exit 1
}
printf 'API     http://%s\n' "$(docker compose port api 8000)"
printf 'Flower  http://%s  (user stoker; the password stands in secrets/flower_auth)\n' "$(docker compose port flower 5555)"
printf 'Token   %s\n' "$(docker compose exec -T api cat /var/lib/stoker/token 2>/dev/null || echo 'see docs/deployment.md')"
