# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# packages.sh: packages of a Debian suite that this machine need not list, by apt files of
# their own. They are to be unpacked, never installed. Sourced by kernels and by
# tests/bench/kublk.

# address KIND: the archive that this machine takes its packages from; KIND is
# main or security. Only names of suites tell the two apart.
address() {
	local want=$1 uri suite codename
	codename=$(sed -n "s/^VERSION_CODENAME=//p" /etc/os-release)
	while IFS='|' read -r uri suite; do
		case $want:$suite in
		security:*-security) echo "$uri"; return ;;
		main:*-security | main:*-updates | main:*-backports) ;;
		main:"$codename" | \
		main:stable | main:testing | main:unstable | main:sid)
			echo "$uri"; return ;;
		esac
	done < <(apt-get indextargets --no-release-info --format "\$(REPO_URI)|\$(RELEASE)" \
		'Created-By: Packages' 'Component: main' 2>/dev/null)
	echo "apt lists no Debian archive ($want) on this machine" >&2
	return 1
}

# private_apt DIRECTORY KIND SUITE [SECONDS]: apt's state for one suite, apart from the machine's;
# SECONDS are for each of two attempts to take the list of its packages, default 600.
# Called where set -e has no effect: each step says that it must work.
private_apt() {
	local dir=$1 bound=${4:-600} uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	uri=$(address "$2") || return
	mkdir -p "$dir"/{lists/partial,cache/archives/partial,state}
	: >"$dir/status"
	if [[ -e $keyring ]]; then
		echo "deb [signed-by=$keyring] $uri $3 main"
	else
		echo "deb $uri $3 main"
	fi >"$dir/sources.list"
	cat >"$dir/apt.conf" <<-CONF
		Dir::Etc::sourcelist "$dir/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State "$dir/state";
		Dir::State::lists "$dir/lists";
		Dir::State::status "$dir/status";
		Dir::Cache "$dir/cache";
		APT::Sandbox::User "";
		APT::Architecture "amd64";
		APT::Architectures "amd64";
		Acquire::Languages "none";
		Acquire::Retries "3";
	CONF
	export APT_CONFIG=$dir/apt.conf
	# A mirror may keep an index past its date; what it lists is signed all the same.
	timeout "$bound" apt-get -qq update >&2 ||
		timeout "$bound" apt-get -qq -o Acquire::Check-Valid-Until=false update >&2
}
