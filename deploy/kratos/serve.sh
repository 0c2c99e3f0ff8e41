#!/bin/sh
# serve.sh SOURCE TARGET: starts Kratos with SOURCE, the webhook key written into it, from TARGET.
#
# Kratos takes most settings from its environment, but nothing inside a list of hooks. So SOURCE has
# a placeholder, and TARGET should lie in memory: then no image, repository or disk holds the key.
#
# KRATOS_FLAGS are for `kratos serve`; unless it is set, Kratos sends its mails itself.
set -eu

source=$1
target=$2
placeholder=@KRATOS_WEBHOOK_API_KEY@

# The API opens to each key of the list; Kratos sends the first. See .env.example on rotation.
key=${KRATOS_WEBHOOK_API_KEYS:?a comma separated list of webhook keys: the first one is sent}
key=${key%%,*}

case $key in
    '' | *[!A-Za-z0-9._~-]*)
        echo 'KRATOS_WEBHOOK_API_KEYS: letters, digits and . _ ~ - only, in the first key' >&2
        exit 1
        ;;
esac

if ! grep -qF "\"$placeholder\"" "$source"; then
    echo "$source has no \"$placeholder\" to put the key in" >&2
    exit 1
fi

umask 077
sed "s/$placeholder/$key/g" "$source" >"$target"

unset KRATOS_WEBHOOK_API_KEYS
# shellcheck disable=SC2086 # flags are words
exec kratos serve --config "$target" ${KRATOS_FLAGS---watch-courier}
