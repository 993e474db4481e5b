# shellcheck shell=bash
# Packages of a Debian release other than this machine's, fetched without root and without touching the system. Sourced.

# debian_archives: prints the archives from which this machine takes its own Debian release, in its own order.
debian_archives() {
  local codename
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016 # apt's own variables
  apt-get indextargets --no-release-info --format '$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)' |
    awk -v release="^($codename|(old)*stable)\$" \
      '$1 == "Packages" && $2 == "main" && $3 ~ release && !seen[$4]++ { print $4 }'
}

# fetch_debs FOLDER ARCHITECTURE SUITES PACKAGE…: downloads packages with all that they need into FOLDER/*.deb, from
# the first archive that has them. SUITES is one word or several; packages come from the last where it has them.
fetch_debs() {
  local folder=$1 architecture=$2 suites=$3 apt archive suite
  shift 3
  # A package system of its own: empty status, so that apt fetches every library, and own sources.
  apt=$(mktemp -d)
  mkdir -p "$apt"/{state/lists/partial,cache/archives/partial}
  touch "$apt/state/status"
  cat >"$apt/apt.conf" <<CONF
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
CONF
  mkdir -p "$folder"
  while read -r archive; do
    echo "fetching from $archive" >&2
    for suite in $suites; do
      echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main"
    done >"$apt/sources.list"
    if APT_CONFIG=$apt/apt.conf apt-get -qq update >&2 &&
      APT_CONFIG=$apt/apt.conf apt-get -qq install -y --no-install-recommends --download-only \
        -t "${suites##* }" "$@" >&2; then
      mv "$apt"/cache/archives/*.deb "$folder"
      rm -rf "$apt"
      return
    fi
  done < <(debian_archives)
  rm -rf "$apt"
  echo "none of this machine's Debian archives has all of: $* (in $suites); archives: $(debian_archives | paste -sd' ')" >&2
  return 1
}
