"""What an object asks of a kernel is read from the object, and held against what the kernel says of itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from squall.kernel.bpf import Object
from squall.kernel.bpf.objects import names
from squall.lab.btf import Btf
from squall.lab.relocations import Needs, Relocation, helpers_of

KERNEL = Path("/sys/kernel/btf/vmlinux")
SOURCE = r"""
#define relocated __attribute__((preserve_access_index))
#define section(name) __attribute__((section(name), used))
typedef unsigned int number;
struct inner { int other; number deep[4]; } relocated;
struct task_struct { int tgid; struct { struct inner nested; }; } relocated;
struct task_struct___long_ago { long state; } relocated;
enum task_kind { KIND_ONE = 1, KIND_TWO = 2 };
static unsigned long (*get_task)(void) = (void *)35;
static long (*read_kernel)(void *to, unsigned size, const void *from) = (void *)113;

section("raw_tp/sys_enter") int looks(void *context)
{
    struct task_struct *task = (void *)get_task();
    int value = 0;
    read_kernel(&value, sizeof value, __builtin_preserve_access_index(&task->tgid));
    read_kernel(&value, sizeof value, __builtin_preserve_access_index(&task->nested.deep[2]));
    if (__builtin_preserve_field_info(((struct task_struct___long_ago *)task)->state, 2))
        value++;
    return value + __builtin_preserve_enum_value(*(enum task_kind *)KIND_TWO, 1);
}

section("raw_tp/sys_exit") int also(void *context) { return looks(context); }
section("license") char terms[] = "GPL";
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    clang = shutil.which("clang-14") or shutil.which("clang")
    if clang is None:
        pytest.skip("clang builds the object; to have it: apt-get install clang-14")
    folder = tmp_path_factory.mktemp("object")
    (folder / "it.bpf.c").write_text(SOURCE)
    subprocess.run([clang, "-g", "-O2", "-target", "bpf", "-c", "it.bpf.c", "-o", "it.o"], cwd=folder, check=True)
    return (folder / "it.o").read_bytes()


@pytest.fixture(scope="module")
def kernel() -> Btf:
    if not KERNEL.exists():
        pytest.skip("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)")
    return Btf(KERNEL.read_bytes())


def test_an_object_names_its_programs_helpers_and_fields(built: bytes) -> None:
    needs = Needs.of(built)
    assert needs.programs == ("also", "looks")
    assert needs.helpers == (35, 113)
    assert {(str(each), each.asked) for each in needs.relocations} == {
        ("task_struct.tgid", False),
        ("task_struct.nested.deep", False),
        ("task_struct.state", True),
        ("task_kind.KIND_TWO", False),
    }


def test_a_kernel_knows_its_fields_and_constants(kernel: Btf) -> None:
    there = [
        Relocation("task_struct", ("tgid",)),
        Relocation("task_struct", ("se", "load", "weight")),
        Relocation("sock", ("__sk_common", "skc_family")),
        Relocation("sk_buff", ("tstamp",)),  # in an anonymous union
        Relocation("sk_buff"),
        Relocation("bpf_func_id", (), "BPF_FUNC_map_lookup_elem"),
    ]
    lacking = [
        Relocation("task_struct", ("no_such_field",)),
        Relocation("task_struct", ("tgid", "inside_a_number")),
        Relocation("no_such_struct", ("tgid",)),
        Relocation("bpf_func_id", (), "BPF_FUNC_no_such_helper"),
    ]
    assert [str(each) for each in there if not each.there(kernel)] == []
    assert [str(each) for each in lacking if each.there(kernel)] == []


def test_a_kernel_knows_its_helpers(kernel: Btf) -> None:
    helpers = helpers_of(kernel)
    assert (helpers[1], helpers[35], helpers[113]) == (
        "bpf_map_lookup_elem", "bpf_get_current_task", "bpf_probe_read_kernel",
    )  # fmt: skip
    assert max(helpers) > 150


@pytest.mark.parametrize("name", names())
def test_every_built_object_can_be_read(name: str) -> None:
    needs = Needs.of(Path(Object(name).path).read_bytes())
    assert needs.programs
    assert needs.helpers


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x9f\xeb\x01"])
def test_what_is_neither_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="this is no"):
        Needs.of(data)
    with pytest.raises(ValueError, match="this is no BTF"):
        Btf(data)
