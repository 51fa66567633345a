# %% [markdown]
# # Training

# %%
import mgca

mgca.__name__
