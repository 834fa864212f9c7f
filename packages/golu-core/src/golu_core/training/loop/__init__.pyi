from .token_losses import TokenScores as TokenScores
from .token_losses import mean_cross_entropy as mean_cross_entropy
from .token_losses import token_scores as token_scores
