#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: system=trixie once=newest
. /lab/lib.sh disks system

# Any Varlink client can do all that ublkctl can: systemd's does, method by method, and
# one in Python that knows nothing but the description that ublkd serves.
socket=/run/ublkd/io.ublkd
service_start

varlinkctl info $socket | tee info
grep -q 'io\.ublkd' info || fail "info does not name the interface"
varlinkctl introspect $socket io.ublkd >interface
varlinkctl validate-idl interface || fail "the description is no good"
sed -nE 's/^method ([A-Za-z]+)\(.*/\1/p' interface | sort >methods
for name in io.ublkd org.varlink.service; do
	varlinkctl list-interfaces $socket | grep -qx "$name" || fail "no interface $name"
done

# ask METHOD PARAMETERS: by the client that is at work. The second one checks that the
# answer is as it was described.
ask() {
	local words=()
	if [[ $client == varlinkctl ]]; then
		varlinkctl call --json=short --timeout=60 $socket "io.ublkd.$1" "$2"
	else
		mapfile -t words < <(jq -r 'to_entries[] | .key + "=" +
			(.value | if type == "string" then . else tojson end)' <<<"$2")
		timeout 60 python3 /lab/varlink.py $socket "io.ublkd.$1" ${words[@]+"${words[@]}"}
	fi
}

# call METHOD PARAMETERS: what it answers is in the file answer.
call() {
	echo "$1" >>called
	ask "$@" >answer || fail "$client: $1 $2: status $?, $(cat answer)"
}

# is WANTED JQ: what the last answer has.
is() { expect "$1" "$(jq -r "$2" answer)" "$(cat answer): $2:"; }

# refuses_call ERROR METHOD PARAMETERS
refuses_call() {
	if ask "$2" "$3" >answer 2>&1; then fail "$client: $2 $3: should have been refused"; fi
	grep -qF "$1" answer || fail "$client: $2 $3: not $1 but $(cat answer)"
}

# each_method: a device's life, by every method but the last two.
each_method() {
	local device
	: >called
	call List '{}'
	is 0 '.exports | length'

	call Export '{"name":"one","uri":"file:/srv/one","options":{"create":"64M","queues":"1"}}'
	is live .export.state
	is requested .export.origin
	is 67108864 .export.size
	device=$(jq -r .export.device answer)
	[[ -b $device ]] || fail "$device is no device"
	# The same once more is the same; another is not.
	call Export '{"name":"one","uri":"file:/srv/one","options":{"create":"64M","queues":"1"}}'
	is "$device" .export.device
	refuses_call io.ublkd.Exists Export '{"name":"one","uri":"memory:32M"}'
	refuses_call io.ublkd.Invalid Export '{"name":"../one","uri":"memory:32M"}'
	refuses_call io.ublkd.Invalid Resize '{"name":"one","size":0}'
	refuses_call io.ublkd.Invalid Resize '{"name":"one","size":-1}'
	# The second client does not even send what is not described.
	if [[ $client == varlinkctl ]]; then
		refuses_call org.varlink.service.InvalidParameter Export '{"name":"two"}'
		refuses_call org.varlink.service.MethodNotFound Explode '{}'
	fi

	call List '{}'
	is one '.exports[0].name'
	call Show '{"name":"one"}'
	is live .details.export.state
	is 1 '.details.queues | length'
	is 1 '.details.options[] | select(.name == "queues") | .value'
	dd if="$device" of=/dev/null bs=4k count=64 iflag=direct status=none
	call Stats '{"name":"one"}'
	is true '.stats.operations[] | select(.name == "read") | .completed >= 64'
	if can_resize; then
		call Resize '{"name":"one","size":134217728}'
		is 134217728 .size
		expect 134217728 "$(blockdev --getsize64 "$device")"
	else
		echo Resize >>called
		refuses_call io.ublkd.Failed Resize '{"name":"one","size":134217728}'
	fi
	call Suspend '{"name":"one"}'
	call Show '{"name":"one"}'
	is suspended .details.export.state
	call Resume '{"name":"one"}'
	call Upgrade '{"name":"one"}'
	is true '.results[] | select(.name == "one") | .done'

	mkdir -p /etc/ublkd/exports.d
	echo 'uri = memory:16M' >/etc/ublkd/exports.d/two.conf
	call Reload '{}'
	is true '.results[] | select(.name == "two") | .done'
	export_lives two
	rm /etc/ublkd/exports.d/two.conf
	call Reload '{}'
	retry 60 export_is two '' || fail "two is not removed: $(ublkctl show two)"

	exec 5<"$device"
	refuses_call io.ublkd.Busy Remove '{"name":"one"}'
	exec 5<&-
	call Remove '{"name":"one"}'
	refuses_call io.ublkd.NoSuchExport Remove '{"name":"one"}'
	refuses_call io.ublkd.NoSuchExport Show '{"name":"one"}'
	[[ ! -e $device ]] || fail "$device is still there"
	rm /srv/one
}

can_resize() {
	ublkctl features --json |
		jq -e '.features | any(.name == "update-size" and .available)' >/dev/null
}

# The monitor runs beside it; what it tells is what happened.
tells() {
	tr -d '\036' <changes | jq -se --arg state "$1" \
		'any(.export.name == "one" and .change.state == $state)' >/dev/null
}
for client in varlinkctl varlink.py; do
	if [[ $client == varlinkctl ]]; then
		watch=(varlinkctl call --more --json=short --timeout=infinity)
	else
		watch=(python3 -u /lab/varlink.py --more)
	fi
	words=()
	[[ $client != varlinkctl ]] || words=('{}')
	timeout 100 "${watch[@]}" $socket io.ublkd.Monitor ${words[@]+"${words[@]}"} >changes &
	monitor=$!
	defer "kill $monitor 2>/dev/null"
	each_method
	for state in opening live suspended gone; do
		retry 20 tells $state || fail "the monitor does not tell of '$state': $(cat changes)"
	done
	kill $monitor
	echo Monitor >>called
done

# Asked for anything, it is started.
systemctl stop ublkd.service
call List '{}'
systemctl --quiet is-active ublkd.service || fail "its socket does not start it"
call Shutdown '{"remove":true}'
expect "$(cat methods)" "$(sort -u called)" "methods that were called:"
