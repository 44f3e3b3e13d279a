from pathlib import Path

import pytest

from ingestor.adapters.mounts import Mount, is_below, mount_of, mounts_below, read_mounts

MOUNTINFO = rb"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /srv/share rw,relatime shared:5 master:1 - nfs4 nas:/export rw,vers=4.2
31 22 0:41 / /srv/share\040two rw,relatime - cifs //nas/two rw
32 22 0:42 / /srv/over rw,relatime - ext4 /dev/vdb rw
33 22 0:43 / /srv/over rw,relatime - fuse.sshfs host: rw
34 22 0:44 / /srv/na\303\257ve\134x rw - tmpfs tmpfs rw
no mount line at all
"""


@pytest.fixture
def mounts(tmp_path: Path) -> tuple[Mount, ...]:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_bytes(MOUNTINFO)
    return read_mounts(mountinfo)


def test_a_mount_has_its_point_unescaped_and_its_kind(mounts: tuple[Mount, ...]) -> None:
    assert Mount("/srv/share two", "cifs") in mounts
    assert Mount("/srv/naïve\\x", "tmpfs") in mounts


def test_of_two_mounts_at_one_point_the_topmost_counts(mounts: tuple[Mount, ...]) -> None:
    assert [mount.kind for mount in mounts if mount.point == "/srv/over"] == ["fuse.sshfs"]


@pytest.mark.parametrize(
    ("folder", "point"),
    [
        ("/", "/"),
        ("/srv", "/"),
        ("/srv/share", "/srv/share"),
        ("/srv/share/a/b", "/srv/share"),
        ("/srv/shared", "/"),
        ("/srv/share two/x", "/srv/share two"),
    ],
)
def test_a_folder_lies_on_the_nearest_mount_above_it(mounts: tuple[Mount, ...], folder: str, point: str) -> None:
    mount = mount_of(folder, mounts)
    assert mount is not None
    assert mount.point == point


def test_mounts_below_leave_out_the_folder_itself_and_its_namesakes(mounts: tuple[Mount, ...]) -> None:
    assert [mount.point for mount in mounts_below("/srv/share", mounts)] == []
    assert {mount.point for mount in mounts_below("/", mounts)} == {mount.point for mount in mounts} - {"/"}


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "fuse.sshfs", "vboxsf", "ceph", "osxfs", "grpcfuse"],
)
def test_network_and_shared_file_systems_are_silent(kind: str) -> None:
    assert Mount("/x", kind).is_silent


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "vfat", "f2fs"])
def test_local_file_systems_are_not(kind: str) -> None:
    assert not Mount("/x", kind).is_silent


def test_where_nothing_is_told_nothing_is_known(tmp_path: Path) -> None:
    assert read_mounts(tmp_path / "missing") == ()
    assert mount_of("/srv", ()) is None


def test_the_mounts_of_this_process_hold_the_root() -> None:
    assert mount_of("/", read_mounts()) is not None


def test_below_goes_by_whole_names() -> None:
    assert is_below("/a/b", "/a")
    assert is_below("/a", "/")
    assert is_below("/a", "/a")
    assert not is_below("/ab", "/a")
