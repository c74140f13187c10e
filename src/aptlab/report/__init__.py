"""Tables, statistics and figures from the numbers of finished runs. No torch.

table       text for people and pipes            statistics  intervals over seeds
groups      runs that differ in their seed       comparison  groups beside each other, with a verdict
figure      one run                              curves      a comparison        heatmap  retrieval by depth
write       the files of a comparison            style       what all figures share
"""
