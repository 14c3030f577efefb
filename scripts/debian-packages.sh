# Debian packages of any suite, through apt, without touching the system's apt: sources, lists and downloads live in the
# cache folder. To be sourced. The mirror is the one that this machine uses, or GMEM_DEBIAN_MIRROR.
# shellcheck shell=bash

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/gmem-conformance"
# shellcheck disable=SC2034 # For those who source this.
KERNELS="$CACHE/kernels"

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

say() {
  printf '%s\n' "$*" >&2
}

# with_value --option VALUE…: ends the script where the option is the last word.
with_value() {
  [[ $# -ge 2 ]] || die "$1 needs a value"
}

# need PACKAGE:COMMAND…: every command must be there, or the script ends and names the packages of Debian to install.
need() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
  done
  [[ ${#missing[@]} -eq 0 ]] || die "not installed: apt-get install ${missing[*]}"
}

debian_mirror() {
  if [[ -n ${GMEM_DEBIAN_MIRROR:-} ]]; then
    printf '%s' "$GMEM_DEBIAN_MIRROR"
  else
    # shellcheck disable=SC2016 # The dollars are apt's.
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
      awk '$1 == "Debian" && !seen { print $2; seen = 1 }'
  fi
}

# private_apt SUITE: from here on, `apt-get -c "$APT"` and `apt-cache -c "$APT"` see this suite and nothing else.
private_apt() {
  local suite="$1" mirror log keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  need apt:apt-get dpkg:dpkg-deb
  mirror="$(debian_mirror)"
  [[ -n $mirror ]] || die "no Debian mirror in this machine's apt lists: set GMEM_DEBIAN_MIRROR, or run apt-get update"
  [[ -e $keyring ]] || die 'no keys of Debian: apt-get install debian-archive-keyring'

  configure_apt "$suite" "$mirror" "$keyring"
  log="$(dirname "$APT")/update.log"
  if update_lists "$log"; then return; fi
  grep -q NO_PUBKEY "$log" || die "cannot read suite $suite of $mirror:"$'\n'"$(cat "$log")"

  # The suite is signed with a key younger than this system. A package that an older key vouches for brings it.
  say "the key of $suite is newer than this system: taking the keyring of stable"
  keyring="$(newer_keyring "$mirror" "$keyring")"
  configure_apt "$suite" "$mirror" "$keyring"
  update_lists "$log" || die "cannot read suite $suite of $mirror:"$'\n'"$(cat "$log")"
}

# configure_apt SUITE MIRROR KEYRING: writes the configuration file and leaves its path in APT.
configure_apt() {
  local dir="$CACHE/apt/$1"
  mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
  : >"$dir/state/status"
  printf 'deb [arch=amd64 signed-by=%s] %s %s main\n' "$3" "$2" "$1" >"$dir/sources.list"
  cat >"$dir/apt.conf" <<CONF
#clear APT::Architectures;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Default-Release "";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Dir::State "$dir/state";
Dir::State::status "$dir/state/status";
Dir::Cache "$dir/cache";
Dir::Cache::archives "archives";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
CONF
  APT="$dir/apt.conf"
}

# apt-get update, where a warning about an unverified suite is a failure.
update_lists() {
  apt-get -c "$APT" -o APT::Update::Error-Mode=any update >"$1" 2>&1
}

# newer_keyring MIRROR KEYRING: prints the path of the keyring in stable's debian-archive-keyring.
newer_keyring() (
  configure_apt stable "$1" "$2"
  update_lists "$(dirname "$APT")/update.log" || die "no suite of $1 is signed with a key that this system trusts"
  fetch_package debian-archive-keyring "$CACHE/apt/keyring"
  printf '%s' "$CACHE/apt/keyring/usr/share/keyrings/debian-archive-keyring.gpg"
)

# has_package NAME
has_package() {
  apt-cache -c "$APT" show --no-all-versions "$1" >/dev/null 2>&1
}

# fetch_package NAME FOLDER [PATTERN…]: downloads, lets apt check the hash, and unpacks (the files that match) there.
fetch_package() {
  local name="$1" folder="$2" download
  shift 2
  mkdir -p "$folder"
  download="$(mktemp -d "$folder/.download.XXXXXX")"
  (cd "$download" && apt-get -c "$APT" -qq download "$name" >&2) || die "cannot download $name"
  dpkg-deb --fsys-tarfile "$download"/*.deb | tar -x -C "$folder" --no-same-owner ${1+--wildcards} "$@"
  rm -rf "$download"
}
