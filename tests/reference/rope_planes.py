"""Rotations by two and three numbers, as literal matrices in float64. Nothing of aptlab is imported."""

import math

import numpy as np

from tests.reference.rope import standard


def rotation_matrix(angle):
    """The 2 x 2 rotation."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def blocks(parts):
    """Matrices along a diagonal."""
    size = sum(len(part) for part in parts)
    out, at = np.zeros((size, size)), 0
    for part in parts:
        out[at : at + len(part), at : at + len(part)] = part
        at += len(part)
    return out


def axial(base, head_dim, place):
    """R over the streams one after the other: D / N dims each, with frequencies of a head of that width."""
    streams = len(place)
    thetas = standard(base, head_dim // streams)
    return blocks([rotation_matrix(number * theta) for number in place for theta in thetas])


def kron(base, head_dim, place):
    """R(a theta) (x) R(b theta) (x) … on blocks of 2^N dims, one block per frequency of a head of D / 2^(N-1) dims."""
    out = []
    for theta in standard(base, head_dim >> (len(place) - 1)):
        block = np.eye(1)
        for number in place:
            block = np.kron(block, rotation_matrix(number * theta))
        out.append(block)
    return blocks(out)


def kron_basis(streams, count):
    """Orthogonal columns in which every block of `kron` is a diagonal of plane rotations, for any place.

    u = (1, -i) / sqrt 2 is an eigenvector of every plane rotation, with e^(i angle); its products with itself and its
    conjugate are eigenvectors of the Kronecker product. Real and imaginary parts, scaled to length 1, are the columns;
    the angles are a ± b ± c with plus first.
    """
    u = np.array([1, -1j]) / math.sqrt(2)
    columns = []
    for signs in range(2 ** (streams - 1)):
        vector = u
        for stream in range(1, streams):
            minus = signs >> (streams - 1 - stream) & 1
            vector = np.kron(vector, u.conj() if minus else u)
        columns += [math.sqrt(2) * vector.real, -math.sqrt(2) * vector.imag]
    return blocks([np.stack(columns, axis=1)] * count)


def mrope_streams(sections):
    """Which of the three numbers each pair takes (Qwen2-VL): one section after the other."""
    return [stream for stream, count in enumerate(sections) for _ in range(count)]


def mrope_interleaved_streams(sections):
    """Qwen3-VL: time everywhere, then height written over pairs 1, 4, 7 …, width over 2, 5, 8 …, `section` times."""
    out = [0] * sum(sections)
    for stream in (1, 2):
        at = stream
        for _ in range(sections[stream]):
            out[at] = stream
            at += 3
    return out


def mixed_angle(place, weights):
    """h · a + w · b (Heo et al. 2024, arXiv:2403.13298, eq. 14)."""
    return place[0] * weights[0] + place[1] * weights[1]
