"""Fewer triangles for the renderer: what is smaller than a pixel need not be drawn."""

from __future__ import annotations

import numpy as np

from relam_jax.envs.simulator import MjModel

MIN_FACES = 1000
"""Meshes with fewer triangles stay as they are."""


def decimate(model: MjModel, cell: float) -> None:
    """Thin out the large meshes of a model that is only rendered, in place.

    Vertices that share a cube of `cell` metres become one of them, the nearest to their mean
    (vertex clustering, Rossignac and Borrel 1993); triangles that shrink to a line or a point, or
    come twice, go. Corners keep their normals and texture coordinates.
    """
    for mesh in np.flatnonzero(model.mesh_facenum > MIN_FACES).tolist():
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        vertices = model.mesh_vert[first : first + count]
        first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        rows = slice(first, first + count)
        faces = _representatives(vertices, cell)[model.mesh_face[rows]]
        corners = np.sort(faces, axis=1)
        whole = np.flatnonzero((corners[:, 0] < corners[:, 1]) & (corners[:, 1] < corners[:, 2]))
        kept = whole[np.unique(corners[whole], axis=0, return_index=True)[1]]
        here = slice(first, first + len(kept))
        model.mesh_face[here] = faces[kept]
        for field in (model.mesh_facenormal, model.mesh_facetexcoord):
            field[here] = field[rows][kept]
        model.mesh_facenum[mesh] = len(kept)


def _representatives(vertices: np.ndarray, cell: float) -> np.ndarray:
    """For each vertex (P, 3) the index of the one that stands for its cube."""
    cube = np.unique(np.floor(vertices / cell), axis=0, return_inverse=True)[1].ravel()
    mean = np.stack([np.bincount(cube, axis) for axis in vertices.T], 1)
    mean /= np.bincount(cube)[:, None]
    order = np.argsort(((vertices - mean[cube]) ** 2).sum(1))[::-1]  # the nearest is written last
    chosen = np.zeros(len(mean), int)
    chosen[cube[order]] = order
    return chosen[cube]
