"""Each candidate looks at the recent visits by itself: target attention (DIN, Zhou et al., KDD 2018)."""

# Letters: B = rows, C = candidates, H = recent visits, N = products, F = values of a visit, D = width.

import torch
from torch import Tensor, nn

from guidelens.models.inputs import NUM_VALUES


class TargetAttention(nn.Module):
    """What of the recent visits matters to a candidate. A learned empty visit takes part too, so that none may matter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width + NUM_VALUES, 2 * width)
        self.nothing = nn.Parameter(torch.zeros(2 * width))

    def forward(self, items_ND: Tensor, rows_BC: Tensor, visited_BH: Tensor, values_BHF: Tensor) -> Tensor:
        """(B, C, D).

        Args:
            rows_BC: product rows of the candidates; -1 gets an answer that means nothing.
            visited_BH: product rows of the recent visits, -1 past the known ones; values_BHF are theirs.
        """
        there_BH1 = (visited_BH >= 0)[:, :, None]
        visits_BHX = torch.cat([items_ND[visited_BH.clamp_min(0)], values_BHF], dim=2)
        empty = self.nothing.expand(len(rows_BC), 1, -1)
        key_BHD, value_BHD = torch.cat([empty, self.key_value(visits_BHX)], dim=1).chunk(2, dim=2)
        there_BH = torch.cat([torch.ones_like(there_BH1[:, :1]), there_BH1], dim=1).squeeze(2)
        query_BCD = self.query(items_ND)[rows_BC.clamp_min(0)]
        scores_BCH = query_BCD @ key_BHD.transpose(1, 2) / query_BCD.shape[2] ** 0.5
        weights_BCH = torch.softmax(scores_BCH.masked_fill(~there_BH[:, None], -1e9), dim=2)
        attended_BCD: Tensor = weights_BCH @ value_BHD
        return attended_BCD
