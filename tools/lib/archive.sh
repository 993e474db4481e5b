# shellcheck shell=bash
# Packages of another Debian release than this machine's, fetched without installing them. Sourced.

# fetch_from_archives DIR RELEASE… -- PACKAGE…: puts the packages (name, or name=version with *), as the last
# release has them, with all that they depend on, into DIR: those for $architecture, or for this machine when that is
# not set. Fetches from where this machine takes its own release. Fails, and says where it looked, when no archive
# has them.
fetch_from_archives() {
  local dir=$1 apt archive codename releases=() archives=()
  shift
  while [[ $1 != -- ]]; do releases+=("$1"); shift; done
  shift
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016 # apt's own variables
  mapfile -t archives < <(
    apt-get indextargets --no-release-info --format '$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)' |
      awk -v release="^($codename|(old)*stable)\$" \
        '$1 == "Packages" && $2 == "main" && $3 ~ release && !seen[$4]++ { print $4 }'
  )
  # A package system of its own: empty status, so that apt fetches every dependency, and own sources.
  apt=$(mktemp -d)
  mkdir -p "$apt"/{state/lists/partial,cache/archives/partial} "$dir"
  touch "$apt/state/status"
  cat >"$apt/apt.conf" <<CONF
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
${architecture:+APT::Architecture "$architecture"; APT::Architectures { "$architecture"; \};}
CONF
  for archive in "${archives[@]}"; do
    echo "fetching from $archive" >&2
    if fetch_from_archive "$archive" "$@" >&2; then
      mv "$apt"/cache/archives/*.deb "$dir"
      rm -rf "$apt"
      return
    fi
  done
  rm -rf "$apt"
  echo "${releases[*]} with $* was found in none of this machine's Debian archives: ${archives[*]:-(none)}" >&2
  return 1
}

# Of fetch_from_archives, whose variables it uses: one archive.
fetch_from_archive() {
  local release
  for release in "${releases[@]}"; do
    echo "deb [target=Packages signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $1 $release main"
  done >"$apt/sources.list"
  shift
  APT_CONFIG=$apt/apt.conf apt-get -qq update &&
    APT_CONFIG=$apt/apt.conf apt-get -qq install -y --no-install-recommends --download-only -t "${releases[-1]}" "$@"
}
