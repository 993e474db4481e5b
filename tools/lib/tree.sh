# shellcheck shell=bash
# Debian packages of a newer release in a folder of their own, without root and without touching the system. Sourced.
# Their programs need their own C library: they are started through its loader.

# debian_tree PART RELEASE PACKAGE…: downloads the packages, with all that they depend on, from this machine's Debian
# archives, newest version of trixie and RELEASE, and unpacks them into PART/root. Fails where no archive has them.
debian_tree() {
  local part=$1 release=$2 apt=$1/apt codename archive name package archives fetched=
  shift 2
  # The archives this machine takes its own release from, in its own order.
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016 # apt's own variables
  mapfile -t archives < <(
    apt-get indextargets --no-release-info --format '$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)' |
      awk -v release="^($codename|(old)*stable)\$" \
        '$1 == "Packages" && $2 == "main" && $3 ~ release && !seen[$4]++ { print $4 }'
  )

  # A package system of its own inside $part: empty status, so that apt fetches every library, and own sources.
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
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
CONF
  for archive in "${archives[@]}"; do
    echo "${0##*/}: fetching from $archive" >&2
    for name in trixie "$release"; do
      echo "deb [target=Packages signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $name main"
    done | sort -u >"$apt/sources.list"
    if APT_CONFIG=$apt/apt.conf apt-get -qq update >&2 &&
      APT_CONFIG=$apt/apt.conf apt-get -qq install -y --no-install-recommends --download-only -t "$release" "$@" >&2; then
      fetched=1
      break
    fi
  done
  if [[ -z $fetched ]]; then
    echo "${0##*/}: $release was found in none of this machine's Debian archives: ${archives[*]:-(none)}" >&2
    return 1
  fi

  mkdir -p "$part/root/usr"/{bin,lib,lib64,sbin}
  for name in bin lib lib64 sbin; do ln -s "usr/$name" "$part/root/$name"; done
  for package in "$apt"/cache/archives/*.deb; do dpkg-deb --extract "$package" "$part/root" || return; done
  rm -rf "$apt"
}

# tree_libraries: where a tree's libraries lie, and the loader among them.
tree_libraries() {
  case $(dpkg --print-architecture) in
    amd64) echo root/usr/lib/x86_64-linux-gnu ld-linux-x86-64.so.2 ;;
    arm64) echo root/usr/lib/aarch64-linux-gnu ld-linux-aarch64.so.1 ;;
    *) echo "${0##*/}: no recipe for the architecture $(dpkg --print-architecture)" >&2; return 1 ;;
  esac
}
