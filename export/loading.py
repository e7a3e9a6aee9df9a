"""Run a SavedModel in a process of its own, by loaders that know nothing of this project or of Keras.

python -m export.loading {session,c} FOLDER CASES ANSWERS

`session` is TensorFlow's loader of 2016, `c` the C library, without Python, that TF Serving, Go and Rust use.
"""

import ctypes
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

FLOAT, UINT8, STRING = 1, 4, 7  # of the C library's types
KINDS = {FLOAT: np.float32, UINT8: np.uint8, STRING: None}
TSTRING_BYTES = 24


def read_cases(path) -> list[dict]:
    """-> [{"inputs": {tensor's name: uint8 [B, ...] or a list of bytes}, "output": tensor's name}]."""
    with np.load(path) as file:
        cases = json.loads(str(file["cases"]))
        for number, case in enumerate(cases):
            case["inputs"] = {name: _read_values(file, f"{number}_{k}") for k, name in enumerate(case["inputs"])}
    return cases


def _read_values(file, key):
    if f"pixels_{key}" in file:
        return file[f"pixels_{key}"]
    ends = np.cumsum(file[f"sizes_{key}"])[:-1]
    return [part.tobytes() for part in np.split(file[f"bytes_{key}"], ends)]


def write_cases(path, cases):
    """The reverse of `read_cases`."""
    arrays = {"cases": json.dumps([{"inputs": list(case["inputs"]), "output": case["output"]} for case in cases])}
    for number, case in enumerate(cases):
        for k, values in enumerate(case["inputs"].values()):
            if isinstance(values, np.ndarray):
                arrays[f"pixels_{number}_{k}"] = values
            else:
                arrays[f"sizes_{number}_{k}"] = np.array([len(value) for value in values])
                arrays[f"bytes_{number}_{k}"] = np.frombuffer(b"".join(values), np.uint8)
    np.savez(path, **arrays)


def by_session(folder, cases):
    """Yield a case's answer, an array or the error."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        v1.saved_model.loader.load(session, ["serve"], folder)
        for case in cases:
            given = {
                name: values if isinstance(values, np.ndarray) else np.array(values, object)
                for name, values in case["inputs"].items()
            }
            try:
                made = session.run(case["output"], given)
                yield made if made.dtype != object else np.zeros(made.shape)  # of bytes, only how many
            except tf.errors.OpError as error:
                yield f"{type(error).__name__}: {error.message}"


def by_c_library(folder, cases):
    """Yield a case's answer, an array or the error."""
    library = _library()
    status = library.TF_NewStatus()
    graph, options = library.TF_NewGraph(), library.TF_NewSessionOptions()
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = library.TF_LoadSessionFromSavedModel(options, None, str(folder).encode(), tags, 1, graph, None, status)
    if library.TF_GetCode(status):
        raise RuntimeError(library.TF_Message(status).decode())
    for case in cases:
        count = len(case["inputs"])
        places = (_Output * count)(*(_output(library, graph, name) for name in case["inputs"]))
        given = (ctypes.c_void_p * count)(*(_tensor(library, values) for values in case["inputs"].values()))
        made = ctypes.c_void_p()
        library.TF_SessionRun(
            session, None, places, given, count,
            ctypes.byref(_output(library, graph, case["output"])), ctypes.byref(made), 1, None, 0, None, status,
        )  # fmt: skip
        if library.TF_GetCode(status):
            yield f"{library.TF_GetCode(status)}: {library.TF_Message(status).decode()}"
            continue
        shape = [library.TF_Dim(made, axis) for axis in range(library.TF_NumDims(made))]
        data = ctypes.string_at(library.TF_TensorData(made), library.TF_TensorByteSize(made))
        kind = KINDS[library.TF_TensorType(made)]
        yield np.frombuffer(data, kind).reshape(shape) if kind else np.zeros(shape)  # of bytes, only how many


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def _library():
    where = Path(importlib.util.find_spec("tensorflow").origin).parent
    (path,) = where.glob("libtensorflow_cc.*")
    library = ctypes.CDLL(str(path))
    pointers = (
        *("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel", "TF_AllocateTensor"),
        *("TF_TensorData", "TF_GraphOperationByName"),
    )
    for name in pointers:
        getattr(library, name).restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    for name in ("TF_TensorByteSize", "TF_Dim"):
        getattr(library, name).restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.TF_LoadSessionFromSavedModel.argtypes = [
        *(pointer, pointer, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), number, pointer, pointer, pointer)
    ]
    library.TF_SessionRun.argtypes = [
        *(pointer, pointer, pointer, pointer, number, pointer, pointer, number, pointer, number, pointer, pointer)
    ]
    library.TF_AllocateTensor.argtypes = [number, ctypes.POINTER(ctypes.c_int64), number, ctypes.c_size_t]
    library.TF_GraphOperationByName.argtypes = [pointer, ctypes.c_char_p]
    library.TF_StringInit.argtypes = [pointer]
    library.TF_StringCopy.argtypes = [pointer, ctypes.c_char_p, ctypes.c_size_t]
    for name in ("TF_TensorData", "TF_TensorByteSize", "TF_TensorType", "TF_NumDims", "TF_GetCode", "TF_Message"):
        getattr(library, name).argtypes = [pointer]
    library.TF_Dim.argtypes = [pointer, number]
    return library


def _tensor(library, values):
    if isinstance(values, np.ndarray):
        shape, kind, size = values.shape, UINT8, values.nbytes
    else:
        shape, kind, size = (len(values),), STRING, TSTRING_BYTES * len(values)
    tensor = library.TF_AllocateTensor(kind, (ctypes.c_int64 * len(shape))(*shape), len(shape), size)
    start = library.TF_TensorData(tensor)
    if kind == UINT8:
        ctypes.memmove(start, np.ascontiguousarray(values).ctypes.data, size)
    else:
        for number, value in enumerate(values):
            library.TF_StringInit(start + TSTRING_BYTES * number)
            library.TF_StringCopy(start + TSTRING_BYTES * number, value, len(value))
    return tensor


def _output(library, graph, name):
    operation, index = name.rsplit(":", 1)
    return _Output(library.TF_GraphOperationByName(graph, operation.encode()), int(index))


LOADERS = {"session": by_session, "c": by_c_library}
TITLES = {"session": "TensorFlow's session", "c": "TensorFlow's C library"}

if __name__ == "__main__":
    loader, folder, cases, answers = sys.argv[1:]
    found = LOADERS[loader](folder, read_cases(cases))
    np.savez(answers, **{str(number): answer for number, answer in enumerate(found)})
